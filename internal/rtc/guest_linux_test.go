package rtc_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/relief"
	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// A table is where guests of an agent sit, by the messages that they wait for.
type table struct {
	mu     sync.Mutex
	guests map[string]*relief.Guest
	paused chan struct{} // receives when a pause comes, which is handled while it does
}

const echo = `{"echo":true,`

// echoOf returns what an agent with a table sends back for a message, "" for an echo.
func echoOf(msg string) string {
	if strings.HasPrefix(msg, echo) {
		return ""
	}
	return echo + msg[1:]
}

// sits has the agent's guests leave when the echoes that they wait for come, and sends back what is no echo.
func sits(a *agent) *table {
	t := &table{guests: make(map[string]*relief.Guest), paused: make(chan struct{})}
	a.onLine = func(p *rtc.Peer, l *wire.PeerLine) bool {
		switch l.Kind {
		case wire.PeerPause:
			<-t.paused
			return true
		case wire.PeerResume:
			panic("resumed")
		}
		if back := echoOf(string(l.Message.Raw)); back != "" {
			_ = p.Send([]byte(back), wire.LaneCalls)
			return true
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if g := t.guests[string(l.Message.Raw)]; g != nil {
			g.Leave()
		}
		return false
	}
	return t
}

func (t *table) add(msg string) *relief.Guest {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := new(relief.Guest)
	t.guests[msg] = g
	return g
}

// asks sends a message, and waits for its echo as a guest. It reports whether that has come when the guest has left.
func (t *table) asks(tt *testing.T, p *rtc.Peer, msg string) bool {
	g := t.add(echoOf(msg))
	send(tt, p, msg)
	p.Attend(tt.Context(), g)
	return g.Over()
}

// seated returns two agents on one host and their guests, of which one of a has got what it waited for.
func seated(t *testing.T) (a, b *agent, ofA, ofB *table) {
	h := newHub(t)
	a, b = start(t, h, "a", onHost), start(t, h, "b", onHost)
	ofA, ofB = sits(a), sits(b)
	a.join()
	b.join()
	moved(t, a, b)
	n, p := 0, a.peer("b")
	testutil.Eventually(t, "a guest", func() bool {
		n++
		return ofA.asks(t, p, message(-n, 100))
	})
	brief := new(relief.Guest)
	brief.Leave()
	for range 100 { // so many are turned away after one that was unlucky
		p.Attend(t.Context(), brief)
	}
	return a, b, ofA, ofB
}

// Guests get what they wait for, all of it comes in order, and the reader takes over what is not for them.
func TestGuest(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"short": 100, "not for guests": 100_000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, _, guests, _ := seated(t)
			before := len(a.received("b"))
			const count = 200
			for i := range count {
				guests.asks(t, a.peer("b"), message(i, size))
			}
			testutil.Eventually(t, "all", func() bool { return len(a.received("b")) == before+count })
			for i, m := range a.received("b")[before:] {
				if m != echoOf(message(i, size)) {
					t.Fatalf("message %d: %.60s", i, m)
				}
			}
		})
	}
}

// Any number may want to be guests while messages go both ways.
func TestGuests(t *testing.T) {
	t.Parallel()
	a, b, ofA, ofB := seated(t)
	beforeA, beforeB := len(a.received("b")), len(b.received("a"))
	const each, askers = 200, 4
	var all sync.WaitGroup
	for _, w := range []struct {
		from, to *agent
		table    *table
	}{{a, b, ofA}, {b, a, ofB}} {
		for k := range askers {
			all.Go(func() {
				for i := range each {
					w.table.asks(t, w.from.peer(w.to.id), fmt.Sprintf(`{"type":"%s%d","n":%d}`, w.from.id, k, i))
				}
			})
		}
	}
	all.Wait()
	for _, w := range []struct {
		at, from *agent
		before   int
	}{{a, b, beforeA}, {b, a, beforeB}} {
		testutil.Eventually(t, "all", func() bool { return len(w.at.received(w.from.id)) >= w.before+each*askers })
		next := map[string]int{}
		for _, m := range w.at.received(w.from.id)[w.before:] {
			for k := range askers {
				kind := echoOf(fmt.Sprintf(`{"type":"%s%d"`, w.at.id, k))
				if strings.HasPrefix(m, kind) {
					if want := fmt.Sprintf(`%s,"n":%d}`, kind, next[kind]); m != want {
						t.Fatalf("%s instead of %s", m, want)
					}
					next[kind]++
				}
			}
		}
	}
}

// A guest goes when it is no longer interested, when something else has come, and when reading is stopped; the reader goes on.
func TestGuestLeaves(t *testing.T) {
	t.Parallel()
	soon := func(t *testing.T) context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	for name, why := range map[string]func(t *testing.T, a, b *agent, g *relief.Guest){
		"its context ends": func(t *testing.T, a, _ *agent, g *relief.Guest) { a.peer("b").Attend(soon(t), g) },
		"it is told to": func(t *testing.T, a, _ *agent, g *relief.Guest) {
			time.AfterFunc(20*time.Millisecond, g.Leave)
			a.peer("b").Attend(t.Context(), g)
		},
		"it was told to before": func(t *testing.T, a, _ *agent, g *relief.Guest) {
			g.Leave()
			a.peer("b").Attend(t.Context(), g)
		},
		"another message comes": func(t *testing.T, a, _ *agent, g *relief.Guest) {
			send(t, a.peer("b"), message(1, 100))
			a.peer("b").Attend(t.Context(), g)
			if g.Over() {
				t.Error("the guest is over")
			}
		},
		"a long one comes": func(t *testing.T, a, _ *agent, g *relief.Guest) {
			send(t, a.peer("b"), message(1, 1<<20))
			a.peer("b").Attend(t.Context(), g)
		},
		"reading is stopped": func(t *testing.T, a, b *agent, g *relief.Guest) {
			a.peer("b").SetReading(false)
			a.peer("b").Attend(t.Context(), g)
			a.peer("b").SetReading(true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b, guests, _ := seated(t)
			before := len(a.received("b"))
			why(t, a, b, guests.add("never"))
			send(t, a.peer("b"), message(2, 100))
			testutil.Eventually(t, "a message", func() bool {
				got := a.received("b")
				return len(got) > before && got[len(got)-1] == echoOf(message(2, 100))
			})
		})
	}
}

// What a guest has read of the socket and leaves is passed on.
func TestGuestLeavesLines(t *testing.T) {
	t.Parallel()
	a, b, guests, _ := seated(t)
	before := len(a.received("b"))
	testutil.Eventually(t, "an empty seat", a.peer("b").SeatVacant)
	left := make(chan struct{})
	go func() {
		defer close(left)
		a.peer("b").Attend(t.Context(), guests.add("never"))
	}()
	testutil.Eventually(t, "a guest", func() bool { return !a.peer("b").SeatVacant() })
	b.peer("a").Pause(wire.StopOrdered)
	const count = 3
	for i := range count {
		send(t, b.peer("a"), echoOf(message(i, 100)))
	}
	testutil.Eventually(t, "all are on their way", func() bool { return b.peer("a").Queued() == 0 })
	guests.paused <- struct{}{} // and now they are read together
	<-left
	testutil.Eventually(t, "all", func() bool { return len(a.received("b")) == before+count })
}

// A link goes on although what a guest has read made it panic, and who has asked recovers.
func TestGuestPanics(t *testing.T) {
	t.Parallel()
	a, b, guests, _ := seated(t)
	testutil.Eventually(t, "an empty seat", a.peer("b").SeatVacant)
	panicked := make(chan any)
	go func() {
		defer func() { panicked <- recover() }()
		a.peer("b").Attend(t.Context(), guests.add("never"))
	}()
	testutil.Eventually(t, "a guest", func() bool { return !a.peer("b").SeatVacant() })
	b.peer("a").Resume()
	if testutil.Take(t, "a panic", panicked) == nil {
		t.Error("no panic")
	}
	before := len(a.received("b"))
	send(t, a.peer("b"), message(1, 100))
	testutil.Eventually(t, "a message", func() bool { return len(a.received("b")) == before+1 })
}

// A link ends although a guest reads, in every way that it can, and so does the guest.
func TestGuestAtEnd(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, a, b *agent){
		"the peer leaves":     func(t *testing.T, _, b *agent) { b.close(t) },
		"this end leaves":     func(t *testing.T, a, _ *agent) { a.close(t) },
		"this end is at odds": func(_ *testing.T, a, _ *agent) { a.peer("b").Violation("something") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b, guests, _ := seated(t)
			left := make(chan struct{})
			go func() {
				defer close(left)
				a.peer("b").Attend(t.Context(), guests.add("never"))
			}()
			time.AfterFunc(20*time.Millisecond, func() { end(t, a, b) })
			<-left
			testutil.Eventually(t, "the end", func() bool { return strings.HasPrefix(a.history(), "[+b -b") })
		})
	}
}
