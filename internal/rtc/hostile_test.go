//go:build !js

package rtc_test

import (
	"encoding/json"
	"path/filepath"
	"sync"
	"testing"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// keyed gives a node a key.
func keyed(t *testing.T) func(*rtc.Config) {
	return func(c *rtc.Config) {
		path := filepath.Join(t.TempDir(), "key.pem")
		if _, err := identity.NewKeyFile(path); err != nil {
			t.Fatal(err)
		}
		id, err := identity.Open(identity.Settings{KeyFile: path})
		if err != nil {
			t.Fatal(err)
		}
		c.Identity = id
	}
}

// eager is an Events that does something as soon as a peer is connected.
type eager struct {
	*recorder
	do func(*rtc.Peer)
}

func (e eager) PeerConnected(p *rtc.Peer) {
	e.recorder.PeerConnected(p)
	e.do(p)
}

// A verified link does not end for a forged offer that comes right behind the hello, before the loop knows more.
func TestForgedOfferAtOnce(t *testing.T) {
	h := newHub(t)
	var cfg rtc.Config
	cfg.Quick()
	cfg.OnlyLoopback()
	keyed(t)(&cfg)
	a := &agent{recorder: newRecorder(t, "a"), id: "a", h: h}
	forged := signal.Message{Type: signal.Offer, PeerID: "b"}
	payload, err := json.Marshal(signal.Description{SDP: "v=0\r\n", Caps: []string{"jsonl", "restart"}, Session: "forged", Instance: "forged"})
	if err != nil {
		t.Fatal(err)
	}
	forged.Payload = payload
	a.Node, err = rtc.New(cfg, port{h, "a"}, eager{a.recorder, func(*rtc.Peer) { a.Receive(forged) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.close(t) })
	a.join()
	b := start(t, h, "b", keyed(t)).join()
	linked(t, a, b)
	if p := b.peer("a"); p != nil {
		_ = p.Send([]byte(`{"type":"t"}`), wire.LaneOrdered)
	}
	testutil.Eventually(t, "a message", func() bool { return len(a.received("b")) == 1 || a.history() != "[+b]" })
	if got := a.history(); got != "[+b]" {
		t.Errorf("history %s", got)
	}
}

// What restarts a verified link is signed, but not all that comes with it. What is not must not count: the link is
// repaired a second time, too. Nor do descriptions of the first restart count in the second one.
func TestHostileRestarts(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	ca, cb := newCable(t), newCable(t)
	a := start(t, h, "a", keyed(t), func(c *rtc.Config) { c.UseNet(ca) }).join()
	b := start(t, h, "b", keyed(t), func(c *rtc.Config) { c.UseNet(cb) }).join()
	linked(t, a, b)
	var mu sync.Mutex
	var old []signal.Message
	h.setFilter(func(m signal.Message) []signal.Message {
		if m.Type == signal.Candidate {
			return []signal.Message{m}
		}
		var d signal.Description
		if err := json.Unmarshal(m.Payload, &d); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		before := old
		old = append(old[:len(old):len(old)], m)
		d.Caps, d.Instance = nil, "another"
		m.Payload, _ = json.Marshal(d)
		return append(before[:len(before):len(before)], m) // all old ones again, then the new one
	})
	stopA, stopB := stream(t, a.peer("b")), stream(t, b.peer("a"))
	defer stopA()
	defer stopB()
	for range 3 {
		before := h.count(signal.Offer, "b", "a")
		ca.cut.Store(true)
		cb.cut.Store(true)
		testutil.Eventually(t, "the interruption", func() bool {
			return h.count(signal.Offer, "b", "a") > before && (a.Recovering("b") || a.history() != "[+b]")
		})
		ca.cut.Store(false)
		cb.cut.Store(false)
		testutil.Eventually(t, "the repair", func() bool {
			return !a.Recovering("b") && !b.Recovering("a") || a.history() != "[+b]"
		})
	}
	sentA, sentB := stopA(), stopB()
	testutil.Eventually(t, "all messages", func() bool {
		return len(b.received("a")) >= sentA && len(a.received("b")) >= sentB || a.history() != "[+b]"
	})
	if ha, hb := a.history(), b.history(); ha != "[+b]" || hb != "[+a]" {
		t.Errorf("history %s and %s: %v", ha, hb, get(a.recorder, func() []error { return a.reasons }))
	}
}
