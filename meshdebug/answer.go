package meshdebug

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/chatixia-ai/mesh"
)

// StatsQuery is the type of the request by which the page asks a peer for its links: one whose card says that it answers.
const StatsQuery = "mesh_stats_query"

// CodePermissionDenied is the code with which an agent refuses to tell of its links.
const CodePermissionDenied mesh.Code = "permission_denied"

// Answer lets peers ask this agent for its links, so that the pages of others show them: who the peers are, and what Mesh.Stats
// says of the links, without addresses and keys. allow says which peers may ask; nil means every one.
//
// Errors are those of Mesh.Handle.
func Answer(m *mesh.Mesh, allow func(mesh.Peer) bool) error {
	return m.Handle(StatsQuery, AnswerHandler(allow))
}

// AnswerHandler is Answer for Config.Handlers, under StatsQuery.
func AnswerHandler(allow func(mesh.Peer) bool) mesh.Handler {
	return answerFrom(allow, func(ctx context.Context, m *mesh.Mesh) (mesh.Stats, error) { return m.Stats(ctx) })
}

func answerFrom(allow func(mesh.Peer) bool, stats func(context.Context, *mesh.Mesh) (mesh.Stats, error)) mesh.Handler {
	began := time.Now()
	return func(ctx context.Context, msg *mesh.Message) (any, error) {
		if allow != nil && !allow(peerOf(msg)) {
			return nil, mesh.NewError(CodePermissionDenied, "this agent does not tell you of its links", nil)
		}
		st, err := stats(ctx, msg.Mesh())
		if err != nil {
			return nil, err
		}
		return answerOf(&st, msg.From, time.Since(began)), nil
	}
}

// peerOf returns the sender of a message.
func peerOf(msg *mesh.Message) mesh.Peer {
	for _, p := range msg.Mesh().Peers() {
		if p.ID == msg.From {
			return p
		}
	}
	return mesh.Peer{ID: msg.From}
}

// An answer is the response to a StatsQuery.
type answer struct {
	ClockMS int64          `json:"clock_ms"` // from some moment on; rates are per second of this clock
	Links   []answeredLink `json:"links"`
}

type answeredLink struct {
	Peer             string    `json:"peer"`
	SinceMS          int64     `json:"since_ms"`
	Path             mesh.Path `json:"path,omitempty"`
	RTTMicros        int64     `json:"rtt_us,omitempty"`
	BytesSent        int64     `json:"bytes_sent"`
	BytesReceived    int64     `json:"bytes_received"`
	MessagesSent     int64     `json:"messages_sent"`
	MessagesReceived int64     `json:"messages_received"`
	Queued           int64     `json:"queued,omitempty"`
	Streams          int64     `json:"streams,omitempty"`
	Outages          int64     `json:"outages,omitempty"`
	Handling         int64     `json:"handling,omitempty"`
	Pending          int64     `json:"pending,omitempty"`
	HeldBack         mesh.Hold `json:"held_back,omitempty"`
	Paused           mesh.Hold `json:"paused,omitempty"`
}

// answerOf returns the answer to a peer, whose query does not count as work.
func answerOf(st *mesh.Stats, asker string, clock time.Duration) answer {
	a := answer{ClockMS: clock.Milliseconds(), Links: make([]answeredLink, 0, len(st.Peers))}
	for i := range st.Peers {
		p := &st.Peers[i]
		handling := p.Handling
		if p.ID == asker {
			handling = max(0, handling-1)
		}
		a.Links = append(a.Links, answeredLink{
			Peer: p.ID, SinceMS: p.Since.UnixMilli(), Path: p.Path, RTTMicros: p.RTT.Microseconds(),
			BytesSent: int64(p.BytesSent), BytesReceived: int64(p.BytesReceived), MessagesSent: int64(p.MessagesSent), MessagesReceived: int64(p.MessagesReceived),
			Queued: int64(p.BytesQueued), Streams: int64(p.Streams), Outages: int64(p.Outages),
			Handling: int64(handling), Pending: int64(p.Pending), HeldBack: p.HeldBack, Paused: p.Paused,
		})
	}
	return a
}

// The bounds of what is taken from a peer.
const (
	maxAnswer  = 1 << 20 // bytes
	maxID      = 256     // bytes
	maxCounted = 1 << 53 // what a page can count
)

var errAnswer = errors.New("meshdebug: the answer is too large, or none")

// readAnswer returns the view that a peer has answered. It may be lies, but it is small, and all values are of their kinds.
func readAnswer(from string, payload any, taken time.Time) (*view, error) {
	raw, _ := payload.(json.RawMessage)
	if len(raw) == 0 || len(raw) > maxAnswer {
		return nil, errAnswer
	}
	var a struct {
		ClockMS *int64         `json:"clock_ms"`
		Links   []answeredLink `json:"links"`
	}
	if err := json.Unmarshal(raw, &a); err != nil {
		return nil, fmt.Errorf("%w: %w", errAnswer, err)
	}
	if a.ClockMS == nil {
		return nil, errAnswer
	}
	v := &view{of: from, clock: time.Duration(counted(*a.ClockMS)%(1<<40)) * time.Millisecond, taken: taken, peers: make(map[string]*linkView)}
	for i := range a.Links {
		l := &a.Links[i]
		if len(v.peers) == maxNodes {
			break
		}
		if l.Peer == "" || len(l.Peer) > maxID || l.Peer == from {
			continue
		}
		v.peers[l.Peer] = &linkView{
			sinceMS: l.SinceMS, path: knownPath(l.Path), rtt: float64(counted(l.RTTMicros)) / 1000,
			sent:     counter{bytes: counted(l.BytesSent), messages: counted(l.MessagesSent)},
			received: counter{bytes: counted(l.BytesReceived), messages: counted(l.MessagesReceived)},
			queued:   counted(l.Queued), streams: counted(l.Streams), outages: counted(l.Outages),
			handling: counted(l.Handling), pending: counted(l.Pending), heldBack: knownHold(l.HeldBack), paused: knownHold(l.Paused),
		}
	}
	return v, nil
}

func counted(n int64) int { return int(max(0, min(n, maxCounted))) }

func knownPath(p mesh.Path) mesh.Path {
	if p == mesh.PathDirect || p == mesh.PathRelayed || p == mesh.PathLocal {
		return p
	}
	return ""
}

func knownHold(h mesh.Hold) mesh.Hold {
	if h == mesh.HoldOrdered || h == mesh.HoldNewWork || h == mesh.HoldAll {
		return h
	}
	return ""
}

// viewOf returns the view of the agent that looks.
func viewOf(self string, st *mesh.Stats, taken time.Time, clock time.Duration, asking func(string) bool) *view {
	v := &view{of: self, clock: clock, taken: taken, peers: make(map[string]*linkView, len(st.Peers))}
	for i := range st.Peers {
		p := &st.Peers[i]
		l := &linkView{
			key: p.Key, card: p.Card, since: p.Since, sinceMS: p.Since.UnixMilli(), path: p.Path, rtt: float64(p.RTT.Microseconds()) / 1000,
			sent:     counter{bytes: p.BytesSent, messages: p.MessagesSent},
			received: counter{bytes: p.BytesReceived, messages: p.MessagesReceived},
			queued:   p.BytesQueued, streams: p.Streams, outages: p.Outages, handling: p.Handling, pending: p.Pending,
			heldBack: p.HeldBack, paused: p.Paused,
		}
		if asking(p.ID) {
			l.pending = max(0, l.pending-1) // our own question
		}
		if p.Local.IsValid() {
			l.local = p.Local.String()
		}
		if p.Remote.IsValid() {
			l.remote = p.Remote.String()
		}
		v.peers[p.ID] = l
	}
	return v
}
