package mesh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// Stats are the numbers of a mesh at one moment.
type Stats struct {
	Peers     []PeerStats // those whose links are live, sorted by id
	Signaling SignalingStatus
	// Restarts is how many times the sidecar was lost and another one came up.
	Restarts int
	// Dropped is how many messages were dropped, by reason: see the constants Drop... .
	Dropped map[string]int
}

// The reasons for which messages are dropped. Config.OnError is told of each.
const (
	DropUnexpectedResponse = "unexpected_response" // no request waits for it
	DropSlowHandlers       = "slow_handlers"       // the peer sends on although the handlers are behind
	DropDuplicateRequest   = "duplicate_request"   // one with this id is being handled
	DropBusy               = "busy"                // the peer makes too many requests, and reads no refusals
	DropUnknownPeer        = "unknown_peer"        // its link has ended meanwhile
	DropNoHandler          = "no_handler"          // it is no request, and has no handler
	// DropSidecar is what the sidecar has dropped: messages that this agent or the peer does not read, or
	// that could not be sent. Of one that was lost it is what Stats has told last.
	DropSidecar = "sidecar"
)

// PeerStats are the numbers of the link to one peer, since Since.
type PeerStats struct {
	Peer
	// Path is how the link reaches the peer; "" if that is not known.
	Path Path
	// Local and Remote are the two ends of the path: of a relayed one, as far as this
	// agent sees it, which is the relay's end. The zero AddrPort if not known.
	Local, Remote netip.AddrPort
	// RTT is the round trip time that ICE has measured last, which it does every few
	// seconds; 0 if it has not yet.
	RTT time.Duration

	// Messages that the sidecar has sent to the peer, and got from it, and the bytes of
	// messages and streams.
	MessagesSent, MessagesReceived int
	BytesSent, BytesReceived       int
	BytesQueued                    int // of messages that wait in the sidecar
	Streams                        int // open, in both directions
	Outages                        int // that the link has survived

	// Requests of the peer that are being handled here, and of this agent whose
	// responses are pending.
	Handling, Pending int
	// HeldBack is what this agent holds back, since the peer, or the way to it, is behind;
	// Paused is what the peer was asked to hold back, since the handlers here are.
	HeldBack, Paused Hold
}

// A Hold is what is held back; "" means nothing, and each other value includes those
// before it.
type Hold string

const (
	HoldOrdered Hold = "ordered"  // messages that are neither requests nor responses
	HoldNewWork Hold = "new_work" // requests
	HoldAll     Hold = "all"      // responses
)

// A Path is a way to reach a peer.
type Path string

const (
	// PathDirect: packets go from host to host.
	PathDirect Path = wire.PathDirect
	// PathRelayed: they pass a TURN server, of this agent or of the peer.
	PathRelayed Path = wire.PathRelayed
	// PathLocal: they pass no network, but a Unix socket of this host; see Network.NoLocal.
	PathLocal Path = wire.PathLocal
)

// Stats returns the numbers of the links to the peers. They come from the sidecar,
// which has them anyway: to ask ten times a second is cheap, and no peer notices.
//
// Errors wrap ErrSidecarLost, errors.ErrUnsupported if the sidecar is one of a version
// that cannot tell, the reason for which the mesh ended, or the cause of ctx.
func (m *Mesh) Stats(ctx context.Context) (Stats, error) {
	if m.ctx.Err() != nil {
		return Stats{}, m.closedError()
	}
	c := m.ipc()
	switch {
	case c == nil:
		return Stats{}, ErrSidecarLost
	case !c.has(wire.FeatureStats):
		return Stats{}, fmt.Errorf("stats: %w by the sidecar", errors.ErrUnsupported)
	}
	told, err := c.stats.ask(ctx, c)
	if err != nil {
		return Stats{}, err
	}
	st, running := m.statsOf(c, told)
	if !running {
		return Stats{}, c.gone()
	}
	return st, nil
}

// statsOf returns what the running sidecar has told of the peers that are live.
func (m *Mesh) statsOf(c *ipc, told wire.Stats) (st Stats, running bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.current != c {
		return Stats{}, false // what it has dropped is counted
	}
	c.dropped = max(c.dropped, told.Dropped)
	st = Stats{Signaling: m.signaling, Restarts: m.sidecars - 1, Dropped: m.drops.counts()}
	if n := m.lostDrops + told.Dropped; n > 0 {
		st.Dropped[DropSidecar] = n
	}
	pending := m.calls.perPeer()
	for i := range told.Peers {
		if p := m.peers[told.Peers[i].PeerID]; p != nil && p.live {
			s := peerStats(&told.Peers[i])
			s.Peer, s.Handling, s.Pending = p.public(), p.inbox.handling(), pending[p.id]
			st.Peers = append(st.Peers, s)
		}
	}
	return st, true
}

// peerStats returns what the sidecar has told of a link.
func peerStats(t *wire.PeerStats) PeerStats {
	s := PeerStats{
		Path: Path(t.Path), RTT: time.Duration(t.RoundTrip) * time.Microsecond,
		MessagesSent: t.MessagesSent, MessagesReceived: t.MessagesReceived, BytesSent: t.BytesSent, BytesReceived: t.BytesReceived,
		BytesQueued: t.Queued, Streams: t.Streams, Outages: t.Outages, HeldBack: Hold(t.HeldBack), Paused: Hold(t.Paused),
	}
	s.Local, _ = netip.ParseAddrPort(t.Local) // zero if it is none
	s.Remote, _ = netip.ParseAddrPort(t.Remote)
	return s
}

// drops counts what was dropped.
type drops struct {
	mu  sync.Mutex
	num map[string]int
}

// dropped counts a message of a peer that was dropped for a reason.
func (m *Mesh) dropped(peer, typ, reason string) {
	m.drops.add(reason)
	m.observe(m.cfg.Observer.Dropped != nil, func(o *Observer) { o.Dropped(peer, typ, reason) })
}

// dropReason returns the reason for an error with which a message was not received.
func dropReason(why error) string {
	switch why {
	case errUnexpectedResponse:
		return DropUnexpectedResponse
	case errInboxFull:
		return DropSlowHandlers
	case errDuplicateRun:
		return DropDuplicateRequest
	case errNotRefused:
		return DropBusy
	}
	return DropUnknownPeer
}

func (d *drops) add(reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.num == nil {
		d.num = make(map[string]int)
	}
	d.num[reason]++
}

func (d *drops) counts() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := make(map[string]int, len(d.num)+1)
	maps.Copy(c, d.num)
	return c
}

// statsQueue are the calls of Stats that wait for the sidecar, which responds in order.
type statsQueue struct {
	mu      sync.Mutex
	waiting []chan wire.Stats // each buffered 1
}

func (q *statsQueue) ask(ctx context.Context, c *ipc) (wire.Stats, error) {
	response := make(chan wire.Stats, 1)
	q.mu.Lock()
	q.waiting = append(q.waiting, response)
	q.mu.Unlock()
	// In process the response comes before this returns.
	if err := c.writeNow(wire.AppendStatsCommand); err != nil {
		return wire.Stats{}, c.gone()
	}
	select {
	case st := <-response:
		return st, nil
	case <-c.ended:
		return wire.Stats{}, c.gone()
	case <-ctx.Done():
		return wire.Stats{}, context.Cause(ctx)
	}
}

// settle passes a response to the call that has waited longest.
func (q *statsQueue) settle(payload []byte) error {
	st, err := wire.DecodeStats(payload)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) > 0 {
		q.waiting[0] <- st
		q.waiting = q.waiting[1:]
	}
	return nil
}
