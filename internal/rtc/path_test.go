//go:build !js

package rtc_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// A path that carries ICE's checks and nothing else, as a hostile signaling server can make one, is an outage: it is
// repaired, or the link ends at its bound. It is the end that sends something that notices.
func TestSilentPath(t *testing.T) {
	t.Parallel()
	for _, sender := range []string{"a", "b"} { // b has offered
		for _, ends := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s sends, the link ends %t", sender, ends), func(t *testing.T) {
				t.Parallel()
				_, a, b, ca, cb := cables(t, func(c *rtc.Config) {
					c.RecoveryTimeout = time.Hour
					if ends {
						c.RecoveryTimeout = 2 * time.Second
					}
				})
				if sender == "b" {
					a, b, ca, cb = b, a, cb, ca
				}
				ca.silent.Store(true)
				cb.silent.Store(true)
				time.Sleep(time.Second) // in which nothing is to be sent, so that nothing is lost
				if a.Recovering(b.id) || b.Recovering(a.id) {
					t.Error("interrupted although nothing is to be sent")
				}
				send(t, a.peer(b.id), `{"type":"t"}`)
				testutil.Eventually(t, "the interruption", func() bool { return a.Recovering(b.id) || ends && a.peer(b.id) == nil })
				if ends {
					testutil.Eventually(t, "the end", func() bool { return a.peer(b.id) == nil })
					// The other end may have given up a moment before, and have taken the restart for a new link.
					if r := get(a.recorder, func() []error { return a.reasons })[0]; !errors.Is(r, rtc.ErrUnreachable) && !errors.Is(r, rtc.ErrRestarted) {
						t.Errorf("reason %v", r)
					}
					return
				}
				time.Sleep(2 * time.Second) // in which restarts succeed, and help nothing
				if !a.Recovering(b.id) {
					t.Error("repaired although nothing arrives")
				}
				ca.silent.Store(false)
				cb.silent.Store(false)
				testutil.Eventually(t, "the message", func() bool { return len(b.received(a.id)) == 1 })
				testutil.Eventually(t, "the repair", func() bool { return !a.Recovering(b.id) && !b.Recovering(a.id) })
				if ha, hb := a.history(), b.history(); ha != "[+"+b.id+"]" || hb != "[+"+a.id+"]" {
					t.Errorf("history %s and %s", ha, hb)
				}
			})
		}
	}
}

// What proves a path during a repair counts also if it was before it is known that ICE has one, or before pion counts it: nothing more
// comes on a link that is idle.
func TestProvenBeforePath(t *testing.T) {
	t.Parallel()
	for _, acknowledged := range []bool{true, false} {
		t.Run(fmt.Sprintf("acknowledged %t", acknowledged), func(t *testing.T) {
			t.Parallel()
			_, a, b := pair(t, func(c *rtc.Config) { c.Watch(time.Hour) })
			from, to := b, a
			if acknowledged {
				from, to = a, b
			}
			if !a.Repair("b", acknowledged, func() {
				send(t, from.peer(to.id), message(1, 100))
				testutil.Eventually(t, "the message", func() bool { return len(to.received(from.id)) == 1 })
				testutil.Eventually(t, "its acknowledgement", func() bool { return from.peer(to.id).Unacknowledged(wire.LaneOrdered) == 0 })
			}) {
				t.Error("the link is not restored")
			}
		})
	}
}
