package rtc_test

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/chatixia-ai/mesh/internal/relief"
	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// A table is where guests of an agent sit, by the ids of the responses that they wait for.
type table struct {
	mu     sync.Mutex
	guests map[string]*relief.Guest
	hold   chan struct{} // receives while the response "hold" is being handled
}

// responseTo returns what an agent with a table sends back for a message, which is no response.
func responseTo(msg string) string {
	return fmt.Sprintf(`{"type":"x_response","request_id":"%s","was":"%s`, idOf(msg), strings.TrimPrefix(msg, `{"type":"`))
}

func idOf(msg string) string {
	h := fnv.New64()
	_, _ = io.WriteString(h, msg) // never fails
	return fmt.Sprint(h.Sum64())
}

// sits has the agent's guests leave when the responses that they wait for come, and responds to what is none.
func sits(a *agent) *table {
	t := &table{guests: make(map[string]*relief.Guest), hold: make(chan struct{})}
	a.onLine = func(p *rtc.Peer, l *wire.PeerLine) bool {
		if l.Kind != wire.PeerMessage {
			return true
		}
		id := string(l.Message.RequestID)
		switch id {
		case "":
			_ = p.Send([]byte(responseTo(string(l.Message.Raw))), wire.LaneCalls)
			return true
		case "hold":
			<-t.hold
		case "panic":
			panic(id)
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if g := t.guests[id]; g != nil {
			g.Leave()
		}
		return false
	}
	return t
}

func response(id string, n int) string {
	return fmt.Sprintf(`{"type":"x_response","request_id":"%s","n":%d}`, id, n)
}

func (t *table) add(id string) *relief.Guest {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := &relief.Guest{For: id}
	t.guests[id] = g
	return g
}

// sit has a guest at a peer, which has a seat for it, wait for a response. left receives once it has left, a panic if there was one.
func sit(ctx context.Context, tt *testing.T, p *rtc.Peer, g *relief.Guest) (left chan any) {
	tt.Helper()
	testutil.Eventually(tt, "an empty seat", p.SeatVacant)
	left = make(chan any, 1)
	go func() {
		defer func() { left <- recover() }()
		p.Attend(ctx, g)
	}()
	testutil.Eventually(tt, "a guest", func() bool { return !p.SeatVacant() })
	return left
}

// asks sends a message, and waits for the response as a guest. It reports whether that has come when the guest has left.
func (t *table) asks(tt *testing.T, p *rtc.Peer, msg string) bool {
	g := t.add(idOf(msg))
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
				if m != responseTo(message(i, size)) {
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
			var got struct {
				Was string `json:"was"`
				N   int    `json:"n"`
			}
			if err := json.Unmarshal([]byte(m), &got); err != nil || got.N != next[got.Was] && got.Was != "t" {
				t.Fatalf("%s instead of %d, %v", m, next[got.Was], err)
			}
			next[got.Was]++
		}
	}
}

// A guest goes when it is no longer interested, when something else has come, and when reading is stopped; the reader goes on.
func TestGuestLeaves(t *testing.T) {
	t.Parallel()
	for name, why := range map[string]func(t *testing.T, a *agent){
		"its context ends": func(t *testing.T, a *agent) {
			ctx, cancel := context.WithCancel(t.Context())
			left := sit(ctx, t, a.peer("b"), &relief.Guest{For: "never"})
			cancel()
			testutil.Take(t, "the guest leaves", left)
		},
		"it is told to": func(t *testing.T, a *agent) {
			g := &relief.Guest{For: "never"}
			left := sit(t.Context(), t, a.peer("b"), g)
			g.Leave()
			testutil.Take(t, "the guest leaves", left)
		},
		"it was told to before": func(t *testing.T, a *agent) {
			g := &relief.Guest{For: "never"}
			g.Leave()
			a.peer("b").Attend(t.Context(), g)
		},
		"another message comes": func(t *testing.T, a *agent) {
			left := sit(t.Context(), t, a.peer("b"), &relief.Guest{For: "never"})
			send(t, a.peer("b"), message(1, 100))
			testutil.Take(t, "the guest leaves", left)
		},
		"a long one comes": func(t *testing.T, a *agent) {
			left := sit(t.Context(), t, a.peer("b"), &relief.Guest{For: idOf(message(1, 1<<20))})
			send(t, a.peer("b"), message(1, 1<<20))
			testutil.Take(t, "the guest leaves", left)
		},
		"reading is stopped": func(t *testing.T, a *agent) {
			a.peer("b").SetReading(false)
			a.peer("b").Attend(t.Context(), &relief.Guest{For: "never"})
			a.peer("b").SetReading(true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, _, _, _ := seated(t)
			before := len(a.received("b"))
			why(t, a)
			send(t, a.peer("b"), message(2, 100))
			testutil.Eventually(t, "a message", func() bool {
				got := a.received("b")
				return len(got) > before && got[len(got)-1] == responseTo(message(2, 100))
			})
		})
	}
}

// What a guest has read of the socket and leaves is passed on.
func TestGuestLeavesLines(t *testing.T) {
	t.Parallel()
	a, b, guests, _ := seated(t)
	before := len(a.received("b"))
	left := sit(t.Context(), t, a.peer("b"), &relief.Guest{For: "hold"})
	const count = 3
	send(t, b.peer("a"), response("hold", 0))
	for i := range count {
		send(t, b.peer("a"), response("other", i))
	}
	testutil.Eventually(t, "all are on their way", func() bool { return b.peer("a").Queued() == 0 })
	guests.hold <- struct{}{} // and now they are read together
	<-left
	testutil.Eventually(t, "all", func() bool { return len(a.received("b")) == before+1+count })
}

// What is not for a guest is handled by the reader: it may lead to code of the application, which waits for what the guest's caller does.
func TestGuestHandlesNothingElse(t *testing.T) {
	t.Parallel()
	a, b, guests, _ := seated(t)
	left := sit(t.Context(), t, a.peer("b"), &relief.Guest{For: "never"})
	send(t, b.peer("a"), response("hold", 0)) // which another one waits for
	testutil.Take(t, "the guest leaves", left)
	guests.hold <- struct{}{}
}

// A link goes on although what a guest has read made it panic, and who has asked recovers.
func TestGuestPanics(t *testing.T) {
	t.Parallel()
	a, b, _, _ := seated(t)
	left := sit(t.Context(), t, a.peer("b"), &relief.Guest{For: "panic"})
	send(t, b.peer("a"), response("panic", 0))
	if testutil.Take(t, "a panic", left) == nil {
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
			a, b, _, _ := seated(t)
			left := sit(t.Context(), t, a.peer("b"), &relief.Guest{For: "never"})
			end(t, a, b)
			testutil.Take(t, "the guest leaves", left)
			testutil.Eventually(t, "the end", func() bool { return strings.HasPrefix(a.history(), "[+b -b") })
		})
	}
}
