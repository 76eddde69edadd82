package signaling

import (
	"encoding/json"
	"errors"
	"slices"
	"sync"

	"github.com/coder/websocket"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// serverID is the peer_id of the server's own messages, the one that chatixia-mesh's registry uses.
const serverID = "registry"

// hub knows who is connected and passes messages between them. It does no I/O: messages go into
// queues.
type hub struct {
	log zerolog.Logger

	mu      sync.Mutex
	members map[string]*member
}

// member is one connected peer, as the hub sees it.
type member struct {
	id         string
	out        *signal.Queue
	end        func(code websocket.StatusCode, reason string) // ends the connection; does not wait
	registered bool                                           // guarded by hub.mu
}

func newHub(log zerolog.Logger) *hub {
	return &hub{log: log, members: map[string]*member{}}
}

// join adds m and ends the connection that it replaces, if any.
func (h *hub) join(m *member) {
	h.mu.Lock()
	old := h.members[m.id]
	h.members[m.id] = m
	h.mu.Unlock()
	if old != nil {
		old.end(signal.CloseReplaced, "replaced by a newer connection of the same peer")
	}
}

// leave removes m, unless it has been replaced.
func (h *hub) leave(m *member) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.members[m.id] == m {
		delete(h.members, m.id)
	}
}

func (h *hub) find(id string) *member {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.members[id]
}

// register marks m and returns the other registered peers. Both happen under one lock, so that of two
// peers that register at once exactly one hears of the other and offers.
func (h *hub) register(m *member) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	m.registered = true
	peers := []string{}
	for id, other := range h.members {
		if id != m.id && other.registered {
			peers = append(peers, id)
		}
	}
	slices.Sort(peers)
	return peers
}

// handle does what one message from a peer asks for.
func (h *hub) handle(from *member, raw []byte) {
	m, err := signal.ParseMessage(raw)
	if err != nil {
		h.refuse(from, signal.CodeMalformed, err)
		return
	}
	if m.PeerID != from.id {
		h.refuse(from, signal.CodeUnauthorized, errors.New("peer_id: is not the subject of the token"))
		return
	}
	switch m.Type {
	case signal.Register:
		peers := h.register(from)
		h.log.Info().Str("peer_id", from.id).Int("peers", len(peers)).Msg("peer registered")
		h.send(from, signal.PeerList, signal.PeersPayload{Peers: peers})
	case signal.Offer, signal.Answer, signal.Candidate:
		h.relay(from, m, raw)
	case signal.Heartbeat:
	default:
		h.log.Warn().Str("peer_id", from.id).Str("type", m.Type[:min(len(m.Type), 64)]).Msg("message of unknown type ignored")
	}
}

// relay passes the sender's own bytes on: ParseMessage has made sure that every reader sees the same
// sender and target in them.
func (h *hub) relay(from *member, m signal.Message, raw []byte) {
	if m.TargetID == "" {
		h.refuse(from, signal.CodeInvalidField, errors.New("target_id: missing or empty"))
		return
	}
	if m.TargetID == from.id {
		h.refuse(from, signal.CodeInvalidField, errors.New("target_id: is the sender"))
		return
	}
	// A peer can be reached once it is connected; it need not be registered, which is about being listed.
	if to := h.find(m.TargetID); to != nil && to.push(raw) {
		h.log.Debug().Str("peer_id", from.id).Str("target_id", m.TargetID).Str("type", m.Type).Msg("relayed")
		return
	}
	h.log.Debug().Str("peer_id", from.id).Str("type", m.Type).Msg("target is not connected")
	h.send(from, signal.ErrorType, signal.ErrorPayload{Code: signal.CodePeerUnavailable, TargetID: m.TargetID})
}

// refuse tells the sender why its message was dropped.
func (h *hub) refuse(from *member, code string, err error) {
	h.log.Warn().Str("peer_id", from.id).Str("code", code).Err(err).Msg("message dropped")
	h.send(from, signal.ErrorType, signal.ErrorPayload{Code: code, Message: err.Error()})
}

// send sends a message of the server's own.
func (h *hub) send(to *member, typ string, payload any) {
	p, err := json.Marshal(payload)
	if err == nil {
		p, err = json.Marshal(signal.Message{Type: typ, PeerID: serverID, Payload: p})
	}
	if err != nil {
		h.log.Error().Err(err).Str("type", typ).Msg("message not encoded")
		return
	}
	to.push(p)
}

// push queues b, and cuts a peer that takes its messages too slowly: leaving some out would break
// negotiations in ways that nobody could see.
func (m *member) push(b []byte) bool {
	if m.out.Push(b) {
		return true
	}
	m.end(websocket.StatusPolicyViolation, "too slow: the outbound queue is full")
	return false
}
