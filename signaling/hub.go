package signaling

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/coder/websocket"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/signal"
)

// serverID is the peer_id of the server's own messages, the one that chatixia-mesh's registry uses.
const serverID = "registry"

// hub knows the connected clients and passes messages between them. It does no I/O: messages go into queues.
//
// A peer id belongs to one connection, its member. Another connection of the same peer is a newcomer until it
// says something, usually register: then the two are compared, the newer one becomes the member, and the other
// is closed. A member that has said nothing yet cannot be compared, so it changes places with the newcomer.
type hub struct {
	outside *logs.Outside

	mu        sync.Mutex
	joined    uint64             // number of join calls
	members   map[string]*client // by peer id
	newcomers map[string]*client // by peer id; only where there is a member

	gone       map[string]*client // by peer id; those that may be told of as left
	departures []departure        // the last ones, one of a client
	telling    sync.WaitGroup     // of those that may be told
	over       chan struct{}      // ends that
}

// client is one connection of a peer, as the hub sees it.
type client struct {
	id  string
	out *signal.Queue
	// end ends the connection without blocking; farewell, if not nil, is sent before the close frame.
	end func(code websocket.StatusCode, reason string, farewell []byte)
	// watch has the connection pinged often; nil in tests.
	watch func()

	// Guarded by hub.mu.
	order      uint64 // of joining
	spoken     bool   // has sent a message, so that started is final
	started    int64  // when its instance was started, Unix milliseconds; negative if unknown
	registered bool
	watches    bool // has asked to be told of peers that have left
}

func newHub(r *logs.Outside) *hub {
	return &hub{outside: r, members: map[string]*client{}, newcomers: map[string]*client{}, gone: map[string]*client{}, over: make(chan struct{})}
}

// close waits until nothing is told any more. It may be called several times, once all clients have left.
func (h *hub) close() {
	h.mu.Lock()
	select {
	case <-h.over:
	default:
		close(h.over)
	}
	h.mu.Unlock()
	h.telling.Wait()
}

// report begins a line that c has caused.
func (h *hub) report(level zerolog.Level, c *client) *zerolog.Event {
	return h.outside.At(level, c.id).Str("peer_id", c.id)
}

// join adds c: as the member if its id is free, else as the one newcomer, in place of any other.
func (h *hub) join(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.joined++
	c.order, c.started = h.joined, -1
	delete(h.gone, c.id)
	if h.members[c.id] == nil {
		h.members[c.id] = c
		return
	}
	if other := h.newcomers[c.id]; other != nil {
		// Not CloseReplaced, which clients take for final: this one may be the newest instance.
		other.end(websocket.StatusTryAgainLater, "another connection of the same peer came before it registered", nil)
	}
	h.newcomers[c.id] = c
}

// leave removes c, unless it has been replaced, and makes a newcomer of its id the member.
func (h *hub) leave(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	newcomer := h.newcomers[c.id]
	switch {
	case newcomer == c:
		delete(h.newcomers, c.id)
	case h.members[c.id] != c:
	case newcomer != nil:
		h.members[c.id] = newcomer
		delete(h.newcomers, c.id)
	default:
		delete(h.members, c.id)
	}
}

// replacedBy ends the connection in favour of a newer one.
func (c *client) replacedBy(winner *client) {
	reason := "replaced by a newer connection of the same peer"
	if winner.started > c.started && c.started >= 0 {
		reason = "replaced by an instance of the same peer that was started later"
	}
	c.end(signal.CloseReplaced, reason, nil)
}

// newerThan reports whether c is the one to keep of two connections of one peer.
func (c *client) newerThan(other *client) bool {
	if c.started >= 0 && other.started >= 0 && c.started != other.started {
		return c.started > other.started
	}
	return c.order > other.order
}

// claimLocked makes c, which has said something, the member of its id if it is the newer connection, and closes
// the other one. It reports whether c is the member.
func (h *hub) claimLocked(c *client) bool {
	c.spoken = true
	member, newcomer := h.members[c.id], h.newcomers[c.id]
	if member == c {
		return true
	}
	if newcomer != c {
		return false // replaced already
	}
	switch {
	case !member.spoken:
		h.members[c.id], h.newcomers[c.id] = c, member
		return true
	case c.newerThan(member):
		h.members[c.id] = c
		delete(h.newcomers, c.id)
		member.replacedBy(c)
		return true
	}
	delete(h.newcomers, c.id)
	c.replacedBy(member)
	return false
}

func (h *hub) claim(c *client) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.claimLocked(c)
}

func (h *hub) find(id string) *client {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.members[id]
}

// errInUse refuses a register with if_free.
var errInUse = errors.New("the peer id is in use by another connection")

// register marks c and returns the other registered peers, or nil if c has been replaced. Both happen under one
// lock, so that of two peers that register at once exactly one sees the other and offers. again reports whether c was
// marked already.
func (h *hub) register(c *client, p signal.RegisterPayload) (l *signal.PeersPayload, again bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.IfFree && h.members[c.id] != c {
		if h.newcomers[c.id] == c {
			delete(h.newcomers, c.id)
		}
		return nil, false, errInUse
	}
	c.started = -1
	if p.Started != nil {
		c.started = *p.Started
	}
	if !h.claimLocked(c) {
		return nil, false, nil
	}
	again, c.registered = c.registered, true
	if p.Left && !c.watches {
		c.watches = true
		if c.watch != nil {
			c.watch()
		}
	}
	return h.listLocked(c), again, nil
}

// listLocked returns the peers that are registered besides one.
func (h *hub) listLocked(c *client) *signal.PeersPayload {
	l := &signal.PeersPayload{Peers: []string{}}
	if c.watches {
		l.Base = []string{}
	}
	for id, other := range h.members {
		if id == c.id || !other.registered {
			continue
		}
		l.Peers = append(l.Peers, id)
		if c.watches && !other.watches {
			l.Base = append(l.Base, id)
		}
	}
	slices.Sort(l.Peers)
	slices.Sort(l.Base)
	return l
}

// handle does what one message from a client asks for. It returns false if the client is to be slowed: for a message
// that it could have known to be wrong or useless, or if too much is queued for the target.
func (h *hub) handle(from *client, raw []byte) (ok bool) {
	m, err := signal.ParseMessage(raw)
	if err != nil {
		return h.refuse(from, signal.CodeMalformed, err)
	}
	if m.PeerID != from.id {
		return h.refuse(from, signal.CodeUnauthorized, errors.New("peer_id: not the subject of the token"))
	}
	if m.Type == signal.Register {
		return h.handleRegister(from, m.Payload)
	}
	if !h.claim(from) {
		return true
	}
	switch m.Type {
	case signal.Offer, signal.Answer, signal.Candidate:
		return h.relay(from, m, raw)
	case signal.Heartbeat:
		return true
	}
	h.report(zerolog.WarnLevel, from).Str("type", logs.Cut(m.Type)).Msg("message of unknown type ignored")
	return false
}

// handleRegister returns false, as handle does, also for registering again: the list is as long as the mesh is large.
func (h *hub) handleRegister(from *client, payload json.RawMessage) (ok bool) {
	p, err := signal.ParseRegister(payload)
	if err != nil {
		return h.refuse(from, signal.CodeInvalidField, err)
	}
	l, again, err := h.register(from, p)
	if err != nil {
		h.report(zerolog.InfoLevel, from).Err(err).Msg("register refused")
		e := signal.ErrorPayload{Code: signal.CodeInUse, Message: err.Error()}
		from.end(signal.CloseInUse, err.Error(), h.encode(signal.ErrorType, e))
		return true
	}
	if l != nil {
		if !again {
			h.report(zerolog.InfoLevel, from).Int("peers", len(l.Peers)).Msg("peer registered")
		}
		h.list(from, l)
	}
	return !again
}

// greet sends the first message to a client that has presented its key in the handshake, and registers it if it has asked
// for that there, for the id that it has.
func (h *hub) greet(to *client, t *tokenResponse, register string) {
	if b := h.encode(signal.Welcome, t); b != nil && !to.out.Push(b) {
		to.end(websocket.StatusPolicyViolation, "the outbound queue has no room", nil)
		return
	}
	if register == "" {
		return
	}
	id, payload, err := signal.ParseEarlyRegister(register)
	switch {
	case err != nil:
		h.refuse(to, signal.CodeInvalidField, fmt.Errorf("%s: %w", signal.HeaderRegister, err))
	case id == "" || id == to.id:
		h.handleRegister(to, payload)
	}
}

// relay passes on the sender's own bytes: ParseMessage has made sure that every reader sees the same sender and
// target in them. What others send never ends a target's connection: what has no room is not relayed.
func (h *hub) relay(from *client, m signal.Message, raw []byte) (ok bool) {
	if m.TargetID == "" {
		return h.refuse(from, signal.CodeInvalidField, errors.New("target_id: missing or empty"))
	}
	if m.TargetID == from.id {
		return h.refuse(from, signal.CodeInvalidField, errors.New("target_id: the sender itself"))
	}
	// A peer can be reached once it is connected; registering is about being listed.
	to := h.find(m.TargetID)
	if to == nil {
		h.report(zerolog.DebugLevel, from).Str("type", m.Type).Msg("target not connected")
		h.tell(from, signal.ErrorPayload{Code: signal.CodePeerUnavailable, TargetID: m.TargetID})
		return true
	}
	if !to.out.PushFrom(from.id, raw) {
		h.report(zerolog.WarnLevel, from).Str("target_id", m.TargetID).Str("code", signal.CodeBusy).
			Int("bytes", len(raw)).Msg("message not relayed: too much is queued for its target")
		h.tell(from, signal.ErrorPayload{Code: signal.CodeBusy, TargetID: m.TargetID,
			Message: "not relayed: too much is queued for the target; try again later"})
		return false
	}
	h.report(zerolog.DebugLevel, from).Str("target_id", m.TargetID).Str("type", m.Type).Msg("relayed")
	return true
}

// refuse tells the sender why its message is dropped. It returns false, for handle.
func (h *hub) refuse(from *client, code string, err error) bool {
	text := logs.Error(err)
	h.report(zerolog.WarnLevel, from).Str("code", code).Str("error", text).Msg("message dropped")
	h.tell(from, signal.ErrorPayload{Code: code, Message: text})
	return false
}

// list responds to a register. It ends the connection of a client that keeps registering and does not read the
// responses.
func (h *hub) list(to *client, l *signal.PeersPayload) {
	if b := h.encode(signal.PeerList, l); b != nil && !to.out.Push(b) {
		to.end(websocket.StatusPolicyViolation, "too slow: the outbound queue is full", nil)
	}
}

// tell sends an error, unless too many are queued. Errors have a share of the queue like a sender's, under the
// empty id, which no peer has.
func (h *hub) tell(to *client, e signal.ErrorPayload) {
	if b := h.encode(signal.ErrorType, e); b != nil && !to.out.PushFrom("", b) {
		h.report(zerolog.DebugLevel, to).Str("code", e.Code).Msg("error not sent: too many are queued")
	}
}

// encode returns a message of the server's own, or nil after logging why there is none.
func (h *hub) encode(typ string, payload any) []byte {
	p, err := json.Marshal(payload)
	if err == nil {
		p, err = json.Marshal(signal.Message{Type: typ, PeerID: serverID, Payload: p})
	}
	if err != nil {
		h.outside.At(zerolog.ErrorLevel, serverID).Err(err).Str("type", typ).Msg("cannot encode a message")
		return nil
	}
	return p
}
