package signaling

import (
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// serverID is the peer_id of the server's own messages, the one that chatixia-mesh's registry uses.
const serverID = "registry"

// hub knows who is connected and passes messages between them. It does no I/O: messages go into
// queues.
type hub struct {
	log  zerolog.Logger
	busy zerolog.Logger // sampled: what a flood may cause

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
	return &hub{
		log:     log,
		busy:    log.Sample(&zerolog.BurstSampler{Burst: 1, Period: time.Second}),
		members: map[string]*member{},
	}
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

// handle does what one message from a peer asks for; busy says that it was refused because too much
// waits for its target.
func (h *hub) handle(from *member, raw []byte) (busy bool) {
	m, err := signal.ParseMessage(raw)
	if err != nil {
		h.refuse(from, signal.CodeMalformed, err)
		return false
	}
	if m.PeerID != from.id {
		h.refuse(from, signal.CodeUnauthorized, errors.New("peer_id: is not the subject of the token"))
		return false
	}
	switch m.Type {
	case signal.Register:
		peers := h.register(from)
		h.log.Info().Str("peer_id", from.id).Int("peers", len(peers)).Msg("peer registered")
		h.list(from, peers)
	case signal.Offer, signal.Answer, signal.Candidate:
		return h.relay(from, m, raw)
	case signal.Heartbeat:
	default:
		h.log.Warn().Str("peer_id", from.id).Str("type", m.Type[:min(len(m.Type), 64)]).Msg("message of unknown type ignored")
	}
	return false
}

// relay passes the sender's own bytes on: ParseMessage has made sure that every reader sees the same
// sender and target in them. No target is ever cut for what others send: what has no room is refused.
func (h *hub) relay(from *member, m signal.Message, raw []byte) (busy bool) {
	if m.TargetID == "" {
		h.refuse(from, signal.CodeInvalidField, errors.New("target_id: missing or empty"))
		return false
	}
	if m.TargetID == from.id {
		h.refuse(from, signal.CodeInvalidField, errors.New("target_id: is the sender"))
		return false
	}
	// A peer can be reached once it is connected; it need not be registered, which is about being listed.
	to := h.find(m.TargetID)
	if to == nil {
		h.log.Debug().Str("peer_id", from.id).Str("type", m.Type).Msg("target is not connected")
		h.tell(from, signal.ErrorPayload{Code: signal.CodePeerUnavailable, TargetID: m.TargetID})
		return false
	}
	if !to.out.PushFrom(from.id, raw) {
		h.busy.Warn().Str("peer_id", from.id).Str("target_id", m.TargetID).Str("code", signal.CodeBusy).
			Int("bytes", len(raw)).Msg("message not relayed: too much waits for its target")
		h.tell(from, signal.ErrorPayload{Code: signal.CodeBusy, TargetID: m.TargetID,
			Message: "not relayed: too much is waiting for the target; try again later"})
		return true
	}
	h.log.Debug().Str("peer_id", from.id).Str("target_id", m.TargetID).Str("type", m.Type).Msg("relayed")
	return false
}

// refuse tells the sender why its message was dropped.
func (h *hub) refuse(from *member, code string, err error) {
	h.log.Warn().Str("peer_id", from.id).Str("code", code).Err(err).Msg("message dropped")
	h.tell(from, signal.ErrorPayload{Code: code, Message: err.Error()})
}

// list answers a register. It cuts a peer that goes on registering and does not take the answers.
func (h *hub) list(to *member, peers []string) {
	if b := h.encode(signal.PeerList, signal.PeersPayload{Peers: peers}); b != nil && !to.out.Push(b) {
		to.end(websocket.StatusPolicyViolation, "too slow: the outbound queue is full")
	}
}

// tell sends an error, unless too many wait already. Errors have a share of the queue like a sender's,
// under the id that no peer has.
func (h *hub) tell(to *member, e signal.ErrorPayload) {
	if b := h.encode(signal.ErrorType, e); b != nil && !to.out.PushFrom("", b) {
		h.busy.Debug().Str("peer_id", to.id).Str("code", e.Code).Msg("error not sent: too many are waiting")
	}
}

// encode returns a message of the server's own, nil after logging that there is none.
func (h *hub) encode(typ string, payload any) []byte {
	p, err := json.Marshal(payload)
	if err == nil {
		p, err = json.Marshal(signal.Message{Type: typ, PeerID: serverID, Payload: p})
	}
	if err != nil {
		h.log.Error().Err(err).Str("type", typ).Msg("message not encoded")
		return nil
	}
	return p
}
