//go:build !js

package rtc_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

func TestConnect(t *testing.T) {
	h, a, b := pair(t)
	send(t, a.peer("b"), `{"type":"ping","request_id":"1"}`)
	send(t, b.peer("a"), "{\"type\":\"pong\",\r\n\"request_id\":\"1\"}")
	testutil.Eventually(t, "both messages", func() bool { return len(b.received("a")) == 1 && len(a.received("b")) == 1 })
	if got := b.received("a")[0]; got != `{"type":"ping","request_id":"1"}` {
		t.Errorf("b got %s", got)
	}
	if got := a.received("b")[0]; got != `{"type":"pong",  "request_id":"1"}` {
		t.Errorf("a got %s", got)
	}
	if !a.peer("b").Extended() || !b.peer("a").Extended() {
		t.Error("not stream framing")
	}
	// The newcomer offers, and nothing is sent twice.
	if n, m := h.count(signal.Offer, "b", "a"), h.count(signal.Offer, "a", "b"); n != 1 || m != 0 {
		t.Errorf("offers: %d by the newcomer, %d by the other", n, m)
	}
	a.Connect("b")
	b.Connect("a")
	send(t, a.peer("b"), `{"type":"again"}`)
	testutil.Eventually(t, "another message", func() bool { return len(b.received("a")) == 2 })
	if n := h.count(signal.Offer, "b", "a") + h.count(signal.Offer, "a", "b"); n != 1 {
		t.Errorf("%d offers after Connect to a live peer", n)
	}
}

func TestMuxedPort(t *testing.T) {
	mux := func(c *rtc.Config) { c.UDPPort = rtc.AnyUDPPort }
	h := newHub(t)
	var as []*agent
	for _, id := range []string{"a", "b", "c", "d"} {
		as = append(as, start(t, h, id, mux).join())
	}
	linked(t, as...)
	for _, x := range as {
		for _, y := range as {
			if x != y {
				send(t, x.peer(y.id), `{"type":"t"}`)
				testutil.Eventually(t, "a message", func() bool { return len(y.received(x.id)) == 1 })
			}
		}
	}
}

// The channel must carry messages far beyond any limit of SCTP, both ways at once.
func TestLargeMessages(t *testing.T) {
	t.Parallel()
	_, a, b := pair(t)
	for from, sizes := range map[*agent][]int{
		a: {1 << 20, 100, 8 << 20, wire.SliceSize, wire.SliceSize - 1},
		b: {1 << 20, 1 << 20, 100},
	} {
		to := map[*agent]*agent{a: b, b: a}[from]
		for i, size := range sizes {
			send(t, from.peer(to.id), message(i, size))
		}
		defer func() {
			for i, m := range to.received(from.id) {
				if m != message(i, sizes[i]) {
					t.Errorf("message %d of %d bytes was changed", i, sizes[i])
				}
			}
		}()
	}
	testutil.Eventually(t, "all messages", func() bool {
		return len(b.received("a")) == 5 && len(a.received("b")) == 3
	})
}

func TestManySmallMessagesInOrder(t *testing.T) {
	const count = 10000
	_, a, b := pair(t)
	var wg sync.WaitGroup
	for _, p := range []*rtc.Peer{a.peer("b"), b.peer("a")} {
		wg.Go(func() {
			for i := range count {
				if err := p.Send([]byte(message(i, 0)), wire.LaneOrdered); err != nil {
					t.Errorf("send %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	for _, got := range []func() []string{
		func() []string { return a.received("b") }, func() []string { return b.received("a") },
	} {
		testutil.Eventually(t, "all messages", func() bool { return len(got()) == count })
		for i, m := range got() {
			if m != message(i, 0) {
				t.Fatalf("message %d is %s", i, m)
			}
		}
	}
}

func TestControlLines(t *testing.T) {
	_, a, b := pair(t)
	p := a.peer("b")
	p.Cancel("r1")
	p.Pause(wire.StopNewWork)
	testutil.Eventually(t, "pause", func() bool { return len(get(b.recorder, func() []string { return b.controls })) == 2 })
	p.Pause(wire.StopNewWork)
	p.Resume()
	p.Cancel("r2")
	testutil.Eventually(t, "the rest", func() bool {
		return strings.HasSuffix(fmt.Sprint(get(b.recorder, func() []string { return b.controls })), " cancel r2]")
	})
	// What was queued in one go may arrive as one, but the last one counts.
	var last string
	for _, c := range get(b.recorder, func() []string { return b.controls }) {
		if c == "pause" || c == "resume" {
			last = c
		}
	}
	if last != "resume" {
		t.Errorf("last control line %q", last)
	}
}

func TestSendLimits(t *testing.T) {
	h := newHub(t)
	a := start(t, h, "a").join()
	b := start(t, h, "b", func(c *rtc.Config) { c.Limits.MaxMessage = 1000; c.Limits.MaxDepth = 5 }).join()
	linked(t, a, b)
	p := a.peer("b")
	send(t, p, message(1, 1000))
	if err := p.Send([]byte(message(2, 1001)), wire.LaneOrdered); code(err) != wire.CodeTooLarge {
		t.Errorf("Send over the peer's limit: %v", err)
	}
	if err := b.peer("a").Send([]byte(message(2, 1001)), wire.LaneOrdered); code(err) != wire.CodeTooLarge {
		t.Errorf("Send over the own limit: %v", err)
	}
	send(t, p, `{"type":"deep","payload":[[[[[[1]]]]]]}`)
	send(t, p, `{"payload":{}}`)
	send(t, p, message(3, 100))
	testutil.Eventually(t, "the valid messages", func() bool { return len(b.received("a")) == 2 })
	rejected := get(b.recorder, func() []error { return b.rejected })
	if len(rejected) != 2 || code(rejected[0]) != wire.CodeTooDeep || code(rejected[1]) != wire.CodeInvalidField {
		t.Errorf("rejected: %v", rejected)
	}
	if b.peer("a") == nil {
		t.Error("the link ended")
	}
	b.close(t)
	testutil.Eventually(t, "the end", func() bool { return a.peer("b") == nil })
	if err := p.Send([]byte(message(4, 10)), wire.LaneOrdered); code(err) != wire.CodePeerLost {
		t.Errorf("Send after the end: %v", err)
	}
}

// Both ask at the same moment, many times: one link each time, and no event about another.
func TestGlare(t *testing.T) {
	for i := range 10 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			h := newHub(t)
			a, b := start(t, h, "a"), start(t, h, "b")
			// Offers cross: none is delivered before both were sent.
			var mu sync.Mutex
			var heldBack []signal.Message
			offers := 0
			h.setFilter(func(m signal.Message) []signal.Message {
				mu.Lock()
				defer mu.Unlock()
				if m.Type == signal.Offer {
					offers++
				}
				if offers < 2 {
					heldBack = append(heldBack, m)
					return nil
				}
				out := append(heldBack, m)
				heldBack = nil
				return out
			})
			a.Registered("a", signal.PeersPayload{})
			b.Registered("b", signal.PeersPayload{})
			h.mu.Lock()
			h.members["a"], h.members["b"] = a.Node, b.Node
			h.mu.Unlock()
			a.Connect("b")
			b.Connect("a")
			linked(t, a, b)
			send(t, a.peer("b"), `{"type":"t"}`)
			send(t, b.peer("a"), `{"type":"t"}`)
			testutil.Eventually(t, "messages", func() bool { return len(b.received("a")) == 1 && len(a.received("b")) == 1 })
			if ha, hb := a.history(), b.history(); ha != "[+b]" || hb != "[+a]" {
				t.Errorf("history %s and %s", ha, hb)
			}
			if n := h.count(signal.Answer, "a", "b"); n != 0 {
				t.Errorf("the smaller id answered %d times", n)
			}
		})
	}
}

// A new process under the same id replaces the old one's link: gone first, then there.
func TestRestartedPeer(t *testing.T) {
	h, a, b := pair(t)
	b.Disconnected()              // it has crashed: it is silent, or it would fight its successor,
	b2 := start(t, h, "b").join() // and it is not closed: its peer has not noticed
	testutil.Eventually(t, "the new link", func() bool { return b2.peer("a") != nil && a.history() == "[+b -b +b]" })
	if reasons := get(a.recorder, func() []error { return a.reasons }); !errors.Is(reasons[0], rtc.ErrRestarted) {
		t.Errorf("reason %v", reasons[0])
	}
	send(t, a.peer("b"), `{"type":"t"}`)
	testutil.Eventually(t, "a message to the new one", func() bool { return len(b2.received("a")) == 1 })
	if n := len(b.received("a")); n != 0 {
		t.Errorf("the old one got %d messages", n)
	}
}

// A peer that closes is reported at once, not after ICE has noticed.
func TestGoodbye(t *testing.T) {
	h, a, b := pair(t)
	h.leave("b")
	b.close(t)
	testutil.Eventually(t, "the end", func() bool { return a.peer("b") == nil })
	if reasons := get(a.recorder, func() []error { return a.reasons }); !errors.Is(reasons[0], rtc.ErrPeerClosed) {
		t.Errorf("reason %v", reasons[0])
	}
	// The next offer finds no such peer, which ends the attempts.
	testutil.Eventually(t, "an offer", func() bool { return h.count(signal.Offer, "a", "b") == 1 })
	b2 := start(t, h, "b").join()
	linked(t, a, b2)
}

// Candidates may overtake their description.
func TestEarlyCandidates(t *testing.T) {
	h := newHub(t)
	a, b := start(t, h, "a"), start(t, h, "b")
	var mu sync.Mutex
	late := make(map[string][]signal.Message)
	h.setFilter(func(m signal.Message) []signal.Message {
		mu.Lock()
		defer mu.Unlock()
		if m.Type != signal.Candidate {
			late[m.PeerID] = append(late[m.PeerID], m)
			return nil
		}
		out := append([]signal.Message{m}, late[m.PeerID]...)
		delete(late, m.PeerID)
		return out
	})
	a.join()
	b.join()
	linked(t, a, b)
}

func TestPeerUnavailable(t *testing.T) {
	h := newHub(t)
	a := start(t, h, "a").join()
	a.Connect("nobody")
	if err := a.failure(t, "nobody"); err.Code != wire.CodePeerUnavailable ||
		!strings.Contains(err.Text, `"nobody": it is not registered`) { // rather than that the time is up
		t.Errorf("error %v", err)
	}
	for _, id := range []string{"", "a", strings.Repeat("x", 1000)} {
		a.Connect(id)
		if err := a.failure(t, id); err.Code != wire.CodeInvalidField {
			t.Errorf("Connect(%.10q): %v", id, err)
		}
	}
	b := start(t, h, "nobody").join()
	linked(t, a, b)
}

// A Connect on hearing of a link's end is for the next one.
func TestConnectWhenGone(t *testing.T) {
	h, a, b := pair(t)
	get(a.recorder, func() bool {
		a.onGone = func(p *rtc.Peer) { a.Connect(p.ID()) }
		return true
	})
	h.leave("b")
	b.close(t)
	testutil.Eventually(t, "ConnectFailed", func() bool { return get(a.recorder, func() *wire.Error { return a.failed["b"] }) != nil })
	e := get(a.recorder, func() *wire.Error { return a.failed["b"] })
	if e.Code != wire.CodePeerUnavailable || !strings.Contains(e.Text, "not registered") {
		t.Errorf("got %v", e)
	}
}

// With a server that does not report unknown targets, the attempt times out, and goes on.
func TestConnectTimeout(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.silent = true
	a := start(t, h, "a", func(c *rtc.Config) { c.ConnectTimeout = 2 * time.Second })
	var first atomic.Int32 // offers of the attempt that failed
	h.setFilter(func(m signal.Message) []signal.Message {
		if m.Type == signal.Offer && get(a.recorder, func() bool { return a.failed["b"] == nil }) {
			first.Add(1)
		}
		return []signal.Message{m}
	})
	a.join()
	for range 3 {
		a.Connect("b")
	}
	testutil.Eventually(t, "ConnectFailed", func() bool { return get(a.recorder, func() *wire.Error { return a.failed["b"] }) != nil })
	if n := first.Load(); n != 1 {
		t.Errorf("%d offers for one attempt", n)
	}
	err := get(a.recorder, func() *wire.Error { return a.failed["b"] })
	if err.Code != wire.CodePeerUnavailable || !strings.HasSuffix(err.Text, "still trying: the peer has not answered") {
		t.Errorf("error %v", err)
	}
	testutil.Eventually(t, "a second offer", func() bool { return h.count(signal.Offer, "a", "b") >= 2 })
}

// Connect before signaling is there waits for it.
func TestConnectWhileOffline(t *testing.T) {
	h := newHub(t)
	a, b := start(t, h, "a"), start(t, h, "b").join()
	a.Connect("b")
	a.join()
	linked(t, a, b)
}

func TestCloseFlushes(t *testing.T) {
	const count = 200
	_, a, b := pair(t)
	for i := range count {
		send(t, a.peer("b"), message(i, 10000))
	}
	ctx, cancel := context.WithTimeout(context.Background(), testutil.Patience)
	defer cancel()
	if err := a.Node.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if got := get(a.recorder, func() []error { return a.reasons }); len(got) != 1 || !errors.Is(got[0], rtc.ErrClosed) {
		t.Errorf("reasons %v", got)
	}
	testutil.Eventually(t, "the end", func() bool { return b.peer("a") == nil })
	if n := len(b.received("a")); n != count {
		t.Errorf("%d of %d messages", n, count)
	}
	a.Connect("b")
	a.Registered("a", signal.PeersPayload{Peers: []string{"b"}})
	a.Disconnected()
	if err := a.Node.Close(ctx); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// Close at any moment of connecting leaves nothing behind, which the check for goroutines sees.
func TestCloseWhileConnecting(t *testing.T) {
	for i := range 12 {
		h := newHub(t)
		a, b := start(t, h, "a").join(), start(t, h, "b").join()
		switch i % 4 {
		case 1:
			testutil.Eventually(t, "an offer", func() bool { return h.count(signal.Offer, "b", "a") > 0 })
		case 2:
			testutil.Eventually(t, "an answer", func() bool { return h.count(signal.Answer, "a", "b") > 0 })
		case 3:
			testutil.Eventually(t, "one end", func() bool { return a.peer("b") != nil || b.peer("a") != nil })
		}
		a.close(t)
		b.close(t)
	}
}
