//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chatixia-ai/mesh"
)

var loadRows = []row{
	{"slow-consumer", "a handler sleeps while much arrives: memory is bounded, others are not slowed down", slowConsumer},
	{"slow-requests", "requests both ways at once, whose handlers are slow: all are answered, or refused as busy; others are not slowed down", slowRequests},
	{"churn", "agents join and leave: nothing of them is left", churn},
	{"glare", "agents start at once and all call Connect: one live link per pair", glare},
}

// mostHeap is what waits for a slow handler at most, on both ends, in bytes.
const mostHeap = 128 << 20

func slowConsumer(r *run) {
	const size = 64 << 10
	s := r.serve()
	alice, bob, carol := r.start(s.url(), "alice"), r.start(s.url(), "bob"), r.start(s.url(), "carol")
	r.linked(alice, bob, carol)
	toCarol := alice.flow(r.ctx, "carol", 1000, 0, time.Millisecond)
	r.pause(500 * time.Millisecond)
	before, begin := carol.sink.of("alice").Got, time.Now()
	r.pause(pick(r, 5*time.Second, time.Second))
	usual := float64(carol.sink.of("alice").Got-before) / time.Since(begin).Seconds()
	base := heap()
	sleep := pick(r, 20*time.Second, 4*time.Second)
	awake := make(chan struct{})
	bob.sink.delay(func() {
		time.Sleep(sleep)
		close(awake)
	})
	count := pick(r, 1<<30, 32<<20) / size
	toBob := alice.flow(r.ctx, "bob", size, count, 0)
	r.pause(sleep / 4) // until what may wait for bob does
	before, begin = carol.sink.of("alice").Got, time.Now()
	most := heap()
	for asleep := true; asleep; {
		select {
		case <-awake:
			asleep = false
		case <-time.After(100 * time.Millisecond):
			most = max(most, heap())
		case <-r.ctx.Done():
			return
		}
	}
	waited := int(toBob.sent.Load())
	share := float64(carol.sink.of("alice").Got-before) / time.Since(begin).Seconds() / usual
	r.arrived(toCarol.halt(), alice, carol)
	r.arrived(count, alice, bob)
	toBob.halt()
	r.check(waited < count, "all was accepted, so that nothing had to wait")
	r.fair(share)
	r.check(most-base < mostHeap, "heap grew by %d MB", (most-base)>>20)
	r.check(alice.losses()+bob.losses()+carol.losses() == 0, "peers were reported gone")
	r.say("%s asleep, %d MB sent, of which %d MB were accepted meanwhile; heap of all ends +%d MB; another peer %.2f of its rate",
		sleep, count*size>>20, waited*size>>20, max(0, most-base)>>20, share)
}

const (
	// slowCount requests of slowSize bytes go each way at once, and as much comes back.
	slowCount = 1000
	slowSize  = 16 << 10
	slowType  = "slow_request"
	// mostAsked is what that takes on the heap of both ends at most, in bytes. The requests and responses that the row itself
	// holds are a quarter of it.
	mostAsked = 256 << 20
)

func slowRequests(r *run) {
	nap := pick(r, 5*time.Second, time.Second)
	slow := func(cfg *mesh.Config) {
		cfg.Handlers[slowType] = func(ctx context.Context, msg *mesh.Message) (any, error) {
			select {
			case <-time.After(nap):
			case <-ctx.Done():
			}
			return msg.Payload, nil
		}
	}
	s := r.serve()
	alice, bob, carol := r.start(s.url(), "alice", slow), r.start(s.url(), "bob", slow), r.start(s.url(), "carol")
	r.linked(alice, bob, carol)
	toCarol := alice.flow(r.ctx, "carol", 1000, 0, time.Millisecond)
	r.pause(500 * time.Millisecond)
	before, begin := carol.sink.of("alice").Got, time.Now()
	r.pause(pick(r, 5*time.Second, time.Second))
	usual := float64(carol.sink.of("alice").Got-before) / time.Since(begin).Seconds()
	base := heap()
	most := base
	before, begin = carol.sink.of("alice").Got, time.Now()
	both := []*asked{r.ask(alice, "bob"), r.ask(bob, "alice")}
	looked := begin
	for _, x := range both {
		r.progress("requests that ended", slowCount, func() int {
			if time.Since(looked) > 100*time.Millisecond {
				looked, most = time.Now(), max(most, heap())
			}
			return int(x.ended.Load())
		})
		x.cancel() // those that hang
		r.await("the end of all requests", x.done)
	}
	elapsed := time.Since(begin)
	share := float64(carol.sink.of("alice").Got-before) / elapsed.Seconds() / usual
	r.arrived(toCarol.halt(), alice, carol)
	r.took("all ended", elapsed, 10*nap)
	answered, busy := both[0].answered.Load()+both[1].answered.Load(), both[0].busy.Load()+both[1].busy.Load()
	r.check(answered == 2*slowCount, "of %d requests %d were answered, and %d refused as busy", 2*slowCount, answered, busy)
	r.fair(share)
	r.check(most-base < mostAsked, "heap grew by %d MB", (most-base)>>20)
	r.check(alice.losses()+bob.losses()+carol.losses() == 0, "peers were reported gone")
	r.say("%d requests each way, of and with %d kB, handlers that take %s: %d answered; heap of all ends +%d MB; another peer %.2f of its %.0f messages/s",
		slowCount, slowSize>>10, nap, answered, max(0, most-base)>>20, share, usual)
}

// asked is what has become of requests.
type asked struct {
	ended, answered, busy atomic.Int64
	cancel                context.CancelFunc
	done                  chan struct{}
}

// ask makes requests to a peer, all at once. They last until they are cancelled, however slow the machine is.
func (r *run) ask(a *agent, peer string) *asked {
	x := &asked{done: make(chan struct{})}
	ctx, cancel := context.WithTimeout(r.ctx, time.Hour)
	x.cancel = cancel
	pad := strings.Repeat("x", slowSize)
	var all sync.WaitGroup
	for n := range slowCount {
		all.Go(func() {
			defer x.ended.Add(1)
			payload := json.RawMessage(fmt.Sprintf(`{"n":%d,"pad":"%s"}`, n, pad))
			reply, err := a.Request(ctx, peer, mesh.Message{Type: slowType, Payload: payload})
			switch {
			case errors.Is(err, mesh.ErrBusy):
				x.busy.Add(1)
			case err != nil:
				r.check(false, "request %d to %s: %v", n, peer, err)
			default:
				back, _ := reply.Payload.(json.RawMessage)
				r.check(bytes.Equal(back, payload), "request %d to %s was answered with %d other bytes", n, peer, len(back))
				x.answered.Add(1)
			}
		})
	}
	go func() { // ends with the requests
		defer cancel()
		defer close(x.done)
		all.Wait()
	}()
	return x
}

// heap returns what this process has on the heap, in bytes, what is no longer needed included.
func heap() int {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func glare(r *run) {
	const peers = 10
	s := r.serve()
	times := pick(r, 50, 3)
	for range times {
		r.do(func(r *run) { together(r, s, peers) })
	}
	r.say("%d peers, %d times", peers, times)
}

// together has agents start and connect to each other at once.
func together(r *run, s *server, peers int) {
	all := make([]*agent, peers)
	ids := make([]string, peers)
	for i := range ids {
		ids[i] = fmt.Sprint("p", i)
	}
	start := time.Now()
	var work sync.WaitGroup
	for i, id := range ids {
		work.Go(func() {
			a, err := newAgent(r.ctx, s.url(), id)
			r.check(err == nil, "%s: %v", id, err)
			if err != nil {
				return
			}
			all[i] = a
			ctx, cancel := r.bounded()
			defer cancel()
			var calls sync.WaitGroup
			for _, other := range ids {
				if other == id {
					continue
				}
				calls.Go(func() { // an error means that the other has not come yet
					_ = a.Connect(ctx, other)
					err := a.reach(ctx, other)
					r.check(err == nil, "%v", err)
				})
			}
			calls.Wait()
		})
	}
	work.Wait()
	r.took("all linked", time.Since(start), 10*time.Second)
	for _, a := range all {
		if a == nil {
			continue
		}
		a.mu.Lock()
		come, gone := 0, 0
		for _, e := range a.events {
			if e.Connected {
				come++
			} else {
				gone++
			}
		}
		a.mu.Unlock()
		r.check(len(a.Peers()) == peers-1 && come == peers-1 && gone == 0, "%s has %d peers, %d came and %d went", a.id, len(a.Peers()), come, gone)
		r.later(func() {
			_ = a.Close()
			<-a.Done()
		})
	}
}
