package signaling

import (
	"fmt"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/signal"
)

// TestWhoIsCut: a peer is cut for registering endlessly, and not for a queue that others or errors have filled.
func TestWhoIsCut(t *testing.T) {
	h := newHub(logs.NewOutside(zerolog.Nop(), logBurst))
	cut := map[string]bool{}
	newClient := func(id string) *client {
		m := &client{id: id, out: signal.NewQueue(10_000, nil), end: func(websocket.StatusCode, string, []byte) { cut[id] = true }}
		h.join(m)
		return m
	}
	victim := newClient("victim")
	for i := range 30 {
		from := newClient(fmt.Sprintf("p%d", i))
		offer := fmt.Sprintf(`{"type":"offer","peer_id":%q,"target_id":"victim","payload":%q}`, from.id, strings.Repeat("x", 1000))
		h.handle(from, []byte(offer))
		if h.handle(from, []byte(offer)) {
			t.Fatal("a sender got more than its share")
		}
		for range 100 {
			h.handle(from, []byte("nonsense"))
		}
	}
	register := []byte(`{"type":"register","peer_id":"victim"}`)
	h.handle(victim, register)
	if len(cut) != 0 {
		t.Fatalf("cut: %v", cut)
	}
	for range 1000 {
		h.handle(victim, register)
	}
	if !cut["victim"] || len(cut) != 1 {
		t.Fatalf("cut: %v, want only who registers a thousand times", cut)
	}
}

// TestReplacedIsSilent: what a connection says after it was replaced reaches nobody.
func TestReplacedIsSilent(t *testing.T) {
	h := newHub(logs.NewOutside(zerolog.Nop(), logBurst))
	var replaced []string
	connect := func(id string) *client {
		m := &client{id: id, out: signal.NewQueue(1<<20, nil)}
		m.end = func(code websocket.StatusCode, _ string, _ []byte) {
			if code == signal.CloseReplaced {
				replaced = append(replaced, id)
			}
		}
		h.join(m)
		return m
	}
	register := func(m *client) { h.handle(m, []byte(`{"type":"register","peer_id":"`+m.id+`"}`)) }
	other, first, second := connect("b"), connect("a"), connect("a")
	for _, m := range []*client{other, first, second} {
		register(m)
	}
	if len(replaced) != 1 {
		t.Fatalf("replaced: %q", replaced)
	}
	for ok := true; ok; { // the list of peers that register asked for
		_, ok = other.out.Pop()
	}
	h.handle(first, []byte(`{"type":"offer","peer_id":"a","target_id":"b","payload":"late"}`))
	if b, ok := other.out.Pop(); ok {
		t.Errorf("b got %s", b)
	}
	h.handle(second, []byte(`{"type":"offer","peer_id":"a","target_id":"b"}`))
	if _, ok := other.out.Pop(); !ok {
		t.Error("b got nothing of the one that stays")
	}
}
