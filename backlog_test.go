package mesh

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// What is added is taken in order, messages and events alike, with the charge that it was added with.
func TestBacklog(t *testing.T) {
	var q backlog
	var want []string
	random := rand.New(rand.NewPCG(1, 2))
	charged, added := 0, 0
	take := func() {
		t.Helper()
		raw, event, charge, ok := q.next()
		got := string(raw)
		if event != nil {
			got = "event " + event.Peer.ID
		}
		if !ok || got != want[0] {
			t.Fatalf("got %.50q, %t; want %.50q", got, ok, want[0])
		}
		want, charged = want[1:], charged-charge
	}
	for added < 5000 {
		switch n := random.IntN(10); {
		case n == 0 && len(q.events) < maxEvents:
			id := fmt.Sprint(added)
			charged += q.addEvent(PeerEvent{Peer: Peer{ID: id}})
			want = append(want, "event "+id)
		case n < 6:
			size := random.IntN(200)
			if n == 5 {
				size = random.IntN(100 << 10)
			}
			text := fmt.Sprint(added) + strings.Repeat("x", size)
			charged += q.addMessage([]byte(text))
			want = append(want, text)
		}
		added++
		for range random.IntN(3) {
			if len(want) > 0 {
				take()
			}
		}
	}
	for len(want) > 0 {
		take()
	}
	if _, _, _, ok := q.next(); ok || charged != 0 {
		t.Errorf("there is more: %t; %d bytes are still charged", ok, charged)
	}
	kept := 0
	for _, p := range q.pieces {
		kept += cap(p.bytes)
	}
	if kept > pieceKept || q.events != nil {
		t.Errorf("%d bytes and %v are kept", kept, q.events)
	}
}

// Comings and goings that nothing lies between are forgotten once many wait; those around messages are not.
func TestBacklogEvents(t *testing.T) {
	var q backlog
	charged := 0
	for range 100 {
		charged += q.addEvent(PeerEvent{Connected: true})
		charged += q.addEvent(PeerEvent{})
	}
	if len(q.events) != maxEvents || charged != maxEvents*eventCost {
		t.Errorf("%d events, %d charged", len(q.events), charged)
	}
	charged += q.addEvent(PeerEvent{Connected: true})
	charged += q.addMessage([]byte("m"))
	charged += q.addEvent(PeerEvent{})
	if len(q.events) != maxEvents+2 || charged != (maxEvents+2)*eventCost+2 {
		t.Errorf("%d events, %d charged", len(q.events), charged)
	}
}
