//go:build !js

package rtc_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// tellLeft has signaling say that a peer's process ended some time ago.
func tellLeft(t *testing.T, to *agent, peer string, ago time.Duration) {
	t.Helper()
	payload, err := json.Marshal(signal.LeftPayload{PeerID: peer, Ago: ago.Milliseconds()})
	if err != nil {
		t.Fatal(err)
	}
	to.Receive(signal.Message{Type: signal.Left, PeerID: "registry", Payload: payload})
}

// A peer that falls silent and leaves signaling in the same moment is dead.
func TestPeerDies(t *testing.T) {
	t.Parallel()
	for _, told := range []time.Duration{300 * time.Millisecond, 3 * time.Second} { // before ICE has noticed anything, and after
		t.Run(told.String(), func(t *testing.T) {
			t.Parallel()
			h, a, b, ca, cb := cables(t, func(c *rtc.Config) {
				c.ICEKeepalive(500 * time.Millisecond)
				c.RecoveryTimeout = time.Hour
			})
			h.leave("b")
			ca.cut.Store(true)
			cb.cut.Store(true)
			died := time.Now()
			time.Sleep(told)
			tellLeft(t, a, "b", time.Since(died))
			testutil.Eventually(t, "the end", func() bool { return a.history() == "[+b -b]" })
			if r := get(a.recorder, func() []error { return a.reasons })[0]; !errors.Is(r, rtc.ErrDied) {
				t.Errorf("reason %v", r)
			}
			if b.history() != "[+a]" {
				t.Errorf("history of the other end %s", b.history())
			}
		})
	}
}

// However long a peer is cut off, and whenever its connection to signaling is reset from 3 s on after the cut, it is not
// taken for dead, even by a server that says so each time. The clocks run ten times as fast as the true ones.
func TestCutOffIsNotDead(t *testing.T) {
	t.Parallel()
	for _, cut := range []time.Duration{1000, 2000, 3000, 4500} {
		for _, reset := range []time.Duration{300, 500, cut / 2, cut - 100} {
			cut, reset := cut*time.Millisecond, reset*time.Millisecond
			t.Run(fmt.Sprint(cut, reset), func(t *testing.T) {
				t.Parallel()
				h, a, b, ca, cb := cables(t, func(c *rtc.Config) {
					c.ICEKeepalive(100 * time.Millisecond)
					c.ICEDisconnected(300 * time.Millisecond)
					c.ICEFailed(9 * time.Second)
					c.Dead(500 * time.Millisecond)
				})
				ca.cut.Store(true)
				cb.cut.Store(true)
				h.setMute("b", true)
				began := time.Now()
				time.AfterFunc(reset, func() {
					closed := time.Now()
					time.AfterFunc(300*time.Millisecond, func() { tellLeft(t, a, "b", time.Since(closed)) })
				})
				time.Sleep(time.Until(began.Add(cut)))
				ca.cut.Store(false)
				cb.cut.Store(false)
				h.setMute("b", false)
				send(t, a.peer("b"), `{"type":"t"}`)
				testutil.Eventually(t, "the message", func() bool { return len(b.received("a")) == 1 })
				time.Sleep(time.Second) // in which what signaling has said last would have its effect
				if ha, hb := a.history(), b.history(); ha != "[+b]" || hb != "[+a]" {
					t.Errorf("history %s and %s", ha, hb)
				}
			})
		}
	}
}

// Signaling ends no link by saying that the peer has left: not one that works, nor one to a peer that gives a sign of
// life, nor one of several that are all silent.
func TestLeftIsNotBelieved(t *testing.T) {
	t.Parallel()
	t.Run("the link works", func(t *testing.T) {
		t.Parallel()
		_, a, b := pair(t)
		for range 30 {
			for _, ago := range []time.Duration{0, time.Second, 2 * time.Second, time.Hour, -time.Hour} {
				tellLeft(t, a, "b", ago)
			}
			time.Sleep(100 * time.Millisecond)
		}
		exchangeOne(t, a, b)
	})
	t.Run("the peer signals", func(t *testing.T) {
		t.Parallel()
		_, a, b, ca, cb := cables(t) // the restarts are answered
		ca.cut.Store(true)
		cb.cut.Store(true)
		tellLeft(t, a, "b", 0)
		time.Sleep(4 * time.Second)
		ca.cut.Store(false)
		cb.cut.Store(false)
		exchangeOne(t, a, b)
	})
	t.Run("others are silent, too", func(t *testing.T) {
		t.Parallel()
		h, a, b, ca, cb := cables(t)
		cc := newCable(t)
		c := start(t, h, "c", func(c *rtc.Config) { c.UseNet(cc) }).join()
		linked(t, a, b, c)
		h.setMute("b", true) // it gives no sign of life
		h.setMute("c", true)
		for _, x := range []*cable{ca, cb, cc} {
			x.cut.Store(true)
		}
		tellLeft(t, a, "b", 0)
		time.Sleep(4 * time.Second)
		h.setMute("b", false)
		h.setMute("c", false)
		for _, x := range []*cable{ca, cb, cc} {
			x.cut.Store(false)
		}
		exchangeOne(t, a, b)
	})
}

// exchangeOne checks that a message arrives, and that the link was never lost.
func exchangeOne(t *testing.T, a, b *agent) {
	t.Helper()
	send(t, a.peer(b.id), `{"type":"t"}`)
	testutil.Eventually(t, "the message", func() bool { return len(b.received(a.id)) == 1 })
	for _, x := range []*agent{a, b} {
		if n := get(x.recorder, func() int { return len(x.reasons) }); n != 0 {
			t.Errorf("%s lost links: %s", x.id, x.history())
		}
	}
}
