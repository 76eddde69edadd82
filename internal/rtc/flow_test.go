//go:build !js

package rtc_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

func jams(r *recorder, id string) []bool {
	return get(r, func() []bool { return slices.Clone(r.jams[id]) })
}

// A peer that does not read fills its own queue, and no other's. Nothing is lost when it reads again.
func TestBackpressure(t *testing.T) {
	h := newHub(t)
	small := func(c *rtc.Config) { c.QueueHigh, c.QueueLow, c.QueueHard = 256<<10, 64<<10, 1<<20 }
	a, b, c := start(t, h, "a", small).join(), start(t, h, "b").join(), start(t, h, "c").join()
	linked(t, a, b, c)
	b.peer("a").SetReading(false)
	p := a.peer("b")
	// Of what is sent, the receive window and the data channel take no more than 4.5 MiB.
	sent, full := 0, false
	testutil.Eventually(t, "a full queue", func() bool {
		for sent < 10_000 {
			err := p.Send([]byte(message(sent, 10000)), wire.LaneOrdered)
			if err != nil {
				full = code(err) == wire.CodeQueueFull && sent*10000 >= 5<<20
				return full
			}
			sent++
		}
		return true
	})
	if !full {
		t.Fatalf("%d messages accepted", sent)
	}
	filled := jams(a.recorder, "b") // the queue may have had room in between
	if len(filled) == 0 || !filled[len(filled)-1] {
		t.Errorf("%d congestion events, of which the last must be true", len(filled))
	}
	if n := p.Queued(); n > 1<<20 {
		t.Errorf("%d bytes queued", n)
	}
	if n := sent * 10000; n > 8<<20 {
		t.Errorf("%d bytes accepted for a peer that does not read", n)
	}
	// Control lines still pass into the queue, and everything flows elsewhere.
	p.Cancel("c1")
	p.Pause(wire.StopNewWork)
	p.Pause(wire.StopNewWork)
	for i := range 100 {
		send(t, a.peer("c"), message(i, 10000))
		send(t, b.peer("a"), message(i, 10000))
	}
	testutil.Eventually(t, "messages to others", func() bool { return len(c.received("a")) == 100 && len(a.received("b")) == 100 })
	if n := len(b.received("a")); n > 1 {
		t.Errorf("%d messages read while reading was stopped", n)
	}
	b.peer("a").SetReading(true)
	testutil.Eventually(t, "all messages", func() bool { return len(b.received("a")) == sent })
	for i, m := range b.received("a") {
		if m != message(i, 10000) {
			t.Fatalf("message %d is %.20s", i, m)
		}
	}
	testutil.Eventually(t, "the end of the congestion", func() bool {
		now := jams(a.recorder, "b")
		return len(now) == len(filled)+1 && !now[len(filled)]
	})
	for i, congested := range jams(a.recorder, "b") {
		if congested != (i%2 == 0) {
			t.Errorf("congestion event %d is %t", i, congested)
		}
	}
	// The cancel stayed behind the messages, the pause went before most of them.
	if got := get(b.recorder, func() []string { return b.controls }); fmt.Sprint(got) != "[pause cancel c1]" {
		t.Errorf("control lines %q", got)
	}
	if p.Queued() != 0 {
		t.Errorf("%d bytes queued at the end", p.Queued())
	}
}

// A peer that leaves is noticed even while its messages are not read.
func TestPeerLeavesWhileNotRead(t *testing.T) {
	h, a, b := pair(t)
	testLeavesWhileNotRead(t, h, a, b)
}

func testLeavesWhileNotRead(t *testing.T, h *hub, a, b *agent) {
	b.peer("a").SetReading(false)
	send(t, a.peer("b"), message(1, 100))
	send(t, a.peer("b"), message(2, 100))
	h.leave("a")
	a.close(t)
	testutil.Eventually(t, "the end", func() bool { return b.peer("a") == nil })
}

// holdUp has the first line that an agent gets held up until release is closed; first is closed when it has come.
func holdUp(a *agent) (first <-chan struct{}, release chan<- struct{}) {
	come, free := make(chan struct{}), make(chan struct{})
	var once sync.Once
	a.onLine = func(*rtc.Peer, *wire.PeerLine) bool {
		once.Do(func() {
			close(come)
			<-free
		})
		return false
	}
	return come, free
}

// What a peer sent before it left is delivered before the news that it left, however slow the handler.
func TestPeerLeavesBeforeItIsRead(t *testing.T) {
	const count = 50
	h := newHub(t)
	a, b := start(t, h, "a"), start(t, h, "b")
	first, release := holdUp(b)
	a.join()
	b.join()
	linked(t, a, b)
	for i := range count {
		send(t, a.peer("b"), message(i, 1000))
	}
	<-first
	h.leave("a")
	ctx, cancel := context.WithTimeout(context.Background(), testutil.Patience)
	defer cancel()
	if err := a.Node.Close(ctx); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, "b notices", b.peer("a").FarEndGone)
	close(release)
	testutil.Eventually(t, "the end", func() bool { return b.peer("a") == nil })
	if n := len(b.received("a")); n != count {
		t.Errorf("%d of %d messages", n, count)
	}
}

func TestQueueCountsBytes(t *testing.T) {
	_, a, b := pair(t)
	p := a.peer("b")
	var wrote int
	for i := range 10 {
		m := message(i, 1000)
		wrote += len(m) + 1
		send(t, p, m)
		if n := p.Queued(); n > wrote {
			t.Fatalf("%d bytes queued after %d", n, wrote)
		}
	}
	testutil.Eventually(t, "an empty queue", func() bool { return p.Queued() == 0 })
	testutil.Eventually(t, "all messages", func() bool { return len(b.received("a")) == 10 })
}

// Sending from within a callback must not lock up.
func TestSendFromCallback(t *testing.T) {
	h := newHub(t)
	echo := func(p *rtc.Peer, l *wire.PeerLine) bool {
		if err := p.Send(l.Message.Raw, wire.LaneOrdered); err != nil {
			t.Error(err)
		}
		runtime.Gosched() // for calls to overlap, if they do
		return true
	}
	tiny := func(c *rtc.Config) { c.QueueHigh, c.QueueLow = 1000, 100 }
	a, b := start(t, h, "a", tiny), start(t, h, "b", tiny)
	b.onLine = echo
	a.onLine = func(*rtc.Peer, *wire.PeerLine) bool {
		runtime.Gosched()
		return false
	}
	a.join()
	b.join()
	linked(t, a, b)
	for i := range 500 {
		send(t, a.peer("b"), message(i, 300))
	}
	testutil.Eventually(t, "the echoes", func() bool { return len(a.received("b")) == 500 })
}
