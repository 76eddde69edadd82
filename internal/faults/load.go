//go:build linux

package main

import (
	"fmt"
	"runtime"
	"sync"
	"time"
)

var loadRows = []row{
	{"slow-consumer", "a handler sleeps while much arrives: memory is bounded, others are not slowed down", slowConsumer},
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
	toCarol := alice.flow(r.ctx, "carol", 1000, 0, 0)
	r.pause(500 * time.Millisecond)
	before, begin := carol.sink.of("alice").Got, time.Now()
	r.pause(pick(r, 5*time.Second, time.Second))
	usual := float64(carol.sink.of("alice").Got-before) / time.Since(begin).Seconds()
	base := heap()
	sleep := pick(r, 20*time.Second, 4*time.Second)
	awake := make(chan struct{})
	bob.sink.slow = func() {
		time.Sleep(sleep)
		close(awake)
	}
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
	r.check(share > 0.5, "another peer got %.2f of its usual rate meanwhile", share)
	r.check(most-base < mostHeap, "heap grew by %d MB", (most-base)>>20)
	r.check(alice.losses()+bob.losses()+carol.losses() == 0, "peers were reported gone")
	r.say("%s asleep, %d MB sent, of which %d MB were accepted meanwhile; heap of all ends +%d MB; another peer %.2f of its rate",
		sleep, count*size>>20, waited*size>>20, max(0, most-base)>>20, share)
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
