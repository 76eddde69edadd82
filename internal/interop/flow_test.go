//go:build linux || darwin

package interop

import (
	"fmt"
	"strings"
	"testing"
)

// The extensions at work, between programs in different languages.

// TestCancel: giving up a request stops the work on it.
func TestCancel(t *testing.T) {
	full(t)
	names := []string{"InProcess", "Python", "Node", "Chromium"}
	for _, first := range names {
		for _, second := range names {
			t.Run(first+"-"+second, func(t *testing.T) {
				t.Parallel()
				st := newStage(t)
				ann := st.enter(t, kindNamed(first), "ann")
				bob := st.enter(t, kindNamed(second), "bob")
				ann.await(1, "+ bob")
				bob.await(1, "+ ann")
				ann.givesUpOn(bob)
				bob.givesUpOn(ann)
			})
		}
	}
}

// givesUpOn: the work on a request stops when the requester gives it up. On a machine that stands still the work may
// be done before the cancel arrives, and the response comes all the same; then a longer request is tried.
func (p *party) givesUpOn(works *party) {
	p.t.Helper()
	for seconds := 1; ; seconds *= 2 {
		id := fmt.Sprintf("%s-nap-%d", p.id, seconds)
		p.do(`request %s {"type":"sleep_request","request_id":"%s","payload":{"seconds":%d}}`, works.id, id, seconds)
		works.message(p.id+": ", func(m message) bool { return m.RequestID == id })
		p.do("cancel %s", id)
		stopped := func() bool { return works.times(p.id+" gave up on "+id) > 0 }
		p.until("the work stops, or is done", func() bool { return stopped() || p.wasTold(works, id) })
		if !stopped() {
			continue
		}
		p.find(1, "that its request has ended", func(l string) bool {
			return strings.HasPrefix(l, "error: ") && strings.Contains(l, id)
		})
		// It has stopped if the response to a longer request has come and this one has not.
		p.do(`request %s {"type":"sleep_request","request_id":"%s-longer","payload":{"seconds":%d.5}}`, works.id, id, seconds)
		p.answered(works.id, id+"-longer")
		if p.wasTold(works, id) {
			p.t.Errorf("%s (%s) gave up, and %s (%s) was answered all the same", works.id, works.name, p.id, p.name)
		}
		return
	}
}

// wasTold reports whether the response to a request has come, as a response or as a late message.
func (p *party) wasTold(by *party, requestID string) bool {
	for _, l := range p.said().all() {
		for _, prefix := range []string{": ", " answers: "} {
			if m, ok := parse(l, by.id+prefix); ok && m.RequestID == requestID {
				return true
			}
		}
	}
	return false
}

// TestPause: an agent with slow handlers makes an agent in another language wait, and nothing is lost. The messages are
// far more than all queues between the two hold.
func TestPause(t *testing.T) {
	full(t)
	const n = 100
	text := strings.Repeat("x", 1<<20)
	for _, from := range []string{"Python", "Node"} {
		t.Run(from, func(t *testing.T) {
			st := newStage(t)
			ann := st.enter(t, kindNamed("InProcess"), "ann")
			bob := st.enter(t, kindNamed(from), "bob")
			ann.await(1, "+ bob")
			bob.await(1, "+ ann")
			for i := range n {
				bob.do(`send ann {"type":"slow","payload":{"i":%d,"text":"%s"}}`, i, text)
			}
			ann.pings(bob, 1) // replies pass
			ann.do("release")
			for i := 9; i < n; i += 10 { // patience begins anew with every ten
				ann.await(1, fmt.Sprintf("bob: slow %d", i))
			}
			i := 0
			for _, l := range ann.said().all() {
				if strings.HasPrefix(l, "bob: slow ") {
					if want := fmt.Sprintf("bob: slow %d", i); l != want {
						t.Fatalf("got %q, want %q", l, want)
					}
					i++
				}
			}
			for _, l := range bob.said().all() {
				if strings.HasPrefix(l, "error: ") {
					t.Error(l)
				}
			}
		})
	}
}

// TestNobody: a message to a peer that is not there gives an error if the agent knows errors, and a log line if not.
func TestNobody(t *testing.T) {
	full(t)
	for _, k := range kinds {
		if !k.sidecar {
			continue // logs nothing of the kind
		}
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			st := newStage(t)
			ann := st.enter(t, k, "ann")
			ann.do(`send nobody {"type":"chat"}`)
			if k.agent {
				ann.find(1, "an error", func(l string) bool {
					return strings.HasPrefix(l, "error: ") && strings.Contains(l, "nobody")
				})
				ann.do("connect somebody") // only signaling knows that there is no such peer
				ann.find(1, "an error", func(l string) bool {
					return strings.HasPrefix(l, "error: ") && strings.Contains(l, "somebody")
				})
				return
			}
			ann.until("it is logged, or known to the agent", func() bool {
				return strings.Contains(ann.log(), "nobody") || strings.Contains(strings.Join(ann.said().all(), "\n"), "nobody")
			})
		})
	}
}
