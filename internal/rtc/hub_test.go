//go:build !js

package rtc_test

import (
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// member is what a hub relays to: a Node, or a double of a base peer.
type member interface {
	Registered(self string, l signal.PeersPayload)
	Receive(signal.Message)
	Disconnected()
}

// hub is a signaling server in memory. It relays in the sender's goroutine, in order.
type hub struct {
	t  *testing.T
	mu sync.Mutex
	// members has those that are registered; order is that of their registration.
	members map[string]member
	order   []string
	// silent leaves out the error for unknown targets, as a base server does.
	silent bool
	// base are the peers that peer_list calls base; nil if it does not say.
	base []string
	// filter, if set, sees each message before it is relayed and returns what to relay instead. Its calls do not overlap, and are
	// over when setFilter returns.
	filtering sync.Mutex // before mu
	filter    func(signal.Message) []signal.Message
	// counts has how many messages of a type went from a peer to a peer.
	counts map[[3]string]int
	// mute has the members whose connection is dead, which they do not know: what they send or should get is lost.
	mute map[string]bool
}

func newHub(t *testing.T) *hub {
	return &hub{t: t, members: make(map[string]member), counts: make(map[[3]string]int), mute: make(map[string]bool)}
}

// join registers a member under an id, in place of whoever had it.
func (h *hub) join(id string, m member) {
	h.mu.Lock()
	peers := slices.DeleteFunc(slices.Clone(h.order), func(p string) bool { return p == id })
	h.order = append(slices.Clone(peers), id)
	h.members[id] = m
	h.mu.Unlock()
	m.Registered(id, signal.PeersPayload{Peers: peers, Base: h.base})
}

func (h *hub) leave(id string) {
	h.mu.Lock()
	m := h.members[id]
	delete(h.members, id)
	h.order = slices.DeleteFunc(h.order, func(p string) bool { return p == id })
	h.mu.Unlock()
	if m != nil {
		m.Disconnected()
	}
}

// setMute makes a member's connection dead, or alive again, which the member does not know.
func (h *hub) setMute(id string, mute bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mute[id] = mute
}

func (h *hub) setFilter(f func(signal.Message) []signal.Message) {
	h.filtering.Lock()
	defer h.filtering.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.filter = f
}

// count returns how many messages of a type went from one peer to another.
func (h *hub) count(typ, from, to string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts[[3]string{typ, from, to}]
}

var errOffline = errors.New("not registered with the hub")

// port is a member's way to the hub.
type port struct {
	h  *hub
	id string
}

func (p port) Send(m signal.Message) error {
	h := p.h
	h.mu.Lock()
	if m.PeerID != p.id {
		h.t.Errorf("%s sends as %q", p.id, m.PeerID)
	}
	if h.members[p.id] == nil {
		h.mu.Unlock()
		return errOffline
	}
	dead := h.mute[p.id] || h.mute[m.TargetID]
	h.mu.Unlock()
	if dead {
		return nil
	}
	for _, m := range h.filtered(m) {
		h.deliver(m)
	}
	return nil
}

// filtered returns what to relay instead of a message.
func (h *hub) filtered(m signal.Message) []signal.Message {
	h.filtering.Lock()
	defer h.filtering.Unlock()
	h.mu.Lock()
	filter := h.filter
	h.mu.Unlock()
	if filter == nil {
		return []signal.Message{m}
	}
	return filter(m)
}

// Probe calls alive if the member is registered.
func (p port) Probe(alive func()) {
	p.h.mu.Lock()
	registered := p.h.members[p.id] != nil && !p.h.mute[p.id]
	p.h.mu.Unlock()
	if registered {
		alive()
	}
}

func (h *hub) deliver(m signal.Message) {
	h.mu.Lock()
	h.counts[[3]string{m.Type, m.PeerID, m.TargetID}]++
	to, from := h.members[m.TargetID], h.members[m.PeerID]
	silent := h.silent
	h.mu.Unlock()
	if to != nil {
		m.TargetID = ""
		to.Receive(m)
		return
	}
	if !silent && from != nil {
		payload, _ := json.Marshal(signal.ErrorPayload{Code: signal.CodePeerUnavailable, TargetID: m.TargetID})
		from.Receive(signal.Message{Type: signal.ErrorType, PeerID: "registry", Payload: payload})
	}
}
