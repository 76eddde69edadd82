//go:build linux || darwin

package interop

import (
	"fmt"
	"strings"
	"testing"
)

func kindNamed(name string) *kind {
	for _, k := range kinds {
		if k.name == name {
			return k
		}
	}
	panic(name)
}

// pings sends a ping to the other party and blocks until the response has come.
func (p *party) pings(to *party, nth int) {
	p.t.Helper()
	id := fmt.Sprintf("%s-%s-sign-%d", p.id, to.id, nth)
	p.do(`request %s {"type":"ping","request_id":"%s"}`, to.id, id)
	p.answered(to.id, id)
}

// TestReturn: a peer that leaves, properly or not, and comes back under the same name is seen to go and to come, and
// links work again.
func TestReturn(t *testing.T) {
	full(t)
	names := []string{"InProcess", "BaseAgent", "BaseSidecar"}
	for _, stays := range names {
		for _, comes := range names {
			for _, how := range []string{"leaves", "dies"} {
				if how == "dies" && comes == "InProcess" {
					continue // it would take the test along; the others have processes of their own
				}
				t.Run(stays+"-"+comes+"-"+how, func(t *testing.T) {
					t.Parallel()
					testReturn(t, kindNamed(stays), kindNamed(comes), how == "dies")
				})
			}
		}
	}
}

func testReturn(t *testing.T, stays, comes *kind, dies bool) {
	st := newStage(t)
	ann := st.enter(t, stays, "ann")
	for nth := 1; nth <= 3; nth++ {
		bob := st.enter(t, comes, "bob")
		bob.await(1, "+ ann")
		ann.await(nth, "+ bob")
		if lost := ann.times("- bob"); ann.sidecar && lost != nth-1 {
			t.Errorf("ann lost bob %d times before he came for the %dth time", lost, nth)
		}
		bob.pings(ann, nth)
		ann.pings(bob, nth)
		if dies {
			bob.die()
		} else {
			bob.leave()
		}
		if !ann.sidecar {
			// It has to see the old connection end first, or it would forget the new one with it. This limit is
			// documented.
			ann.until("every connection to bob has ended", func() bool {
				return strings.Count(ann.log(), "connection to bob is closed")+
					strings.Count(ann.log(), "connection to bob is failed") >= nth
			})
		}
	}
}

// die ends its sidecar as a crash would.
func (p *party) die() {
	p.t.Helper()
	p.ended = true
	d, ok := p.console.(interface{ kill() })
	if !ok {
		p.t.Fatalf("a %s cannot die", p.name)
	}
	d.kill()
	p.checkLog()
}

// TestSignalingRestarts: a new signaling server knows no peers. Extended peers keep their links; base peers drop theirs
// and come back.
func TestSignalingRestarts(t *testing.T) {
	full(t)
	st := newStage(t)
	ann := st.enter(t, kindNamed("InProcess"), "ann")
	bob := st.enter(t, kindNamed("BaseAgent"), "bob")
	cho := st.enter(t, kindNamed("BaseSidecar"), "cho")
	all := []*party{ann, bob, cho}
	for _, p := range all {
		for _, other := range all {
			if p != other {
				p.await(1, "+ "+other.id)
			}
		}
	}
	st.serve(t)
	for _, p := range []*party{ann, bob} {
		p.await(1, "- cho")
		p.await(2, "+ cho")
		cho.await(2, "+ "+p.id)
		p.pings(cho, 1)
		cho.pings(p, 1)
	}
	ann.pings(bob, 1)
	bob.pings(ann, 1)
	if n := ann.times("- bob") + bob.times("- ann"); n != 0 {
		t.Errorf("the link between extended sidecars was lost %d times", n)
	}
}

// TestAllAtOnce: peers that start in the same moment offer to each other at once. Two base sidecars cannot handle that,
// so there is one.
func TestAllAtOnce(t *testing.T) {
	st := newStage(t)
	var all []*party
	for i, name := range []string{"BaseSidecar", "Binary", "BaseAgent", "SelfExec", "InProcess"} {
		all = append(all, st.begin(t, kindNamed(name), fmt.Sprintf("p%d", i)))
	}
	for _, p := range all {
		for _, other := range all {
			if p != other {
				p.await(1, "+ "+other.id)
			}
		}
	}
	for _, p := range all {
		for _, other := range all {
			if p != other {
				p.pings(other, 1)
			}
		}
	}
}
