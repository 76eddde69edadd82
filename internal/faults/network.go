//go:build linux

package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/testutil/netpath"
)

var networkRows = []row{
	{"cut", "the path between two agents is cut both ways under load", func(r *run) { cut(r, false) }},
	{"cut-and-signaling", "the same, with the signaling server down meanwhile", func(r *run) { cut(r, true) }},
	{"cut-for-good", "the path stays cut: both ends are told", cutForGood},
	{"loss-1", "1 % of the packets are lost, both ways under load", func(r *run) { lossy(r, netpath.Conditions{Loss: 0.01}, 1000) }},
	{"loss-5", "5 % of them", func(r *run) { lossy(r, netpath.Conditions{Loss: 0.05}, 1000) }},
	{"loss-20", "20 % of them", func(r *run) { lossy(r, netpath.Conditions{Loss: 0.2}, 200) }},
	{"reordering", "10 % of the packets come late, and 1 % are lost", func(r *run) { lossy(r, netpath.Conditions{Reorder: 0.1, Loss: 0.01}, 1000) }},
}

const (
	// pathDelay is that of a path, one way.
	pathDelay = 10 * time.Millisecond
	// mostBack is after how long messages flow again once a path is back.
	mostBack = 3 * time.Second
	// mostUnnoticed is how much longer than RecoveryTimeout a peer that is cut off may count as there: until ICE has noticed,
	// and for 5 s more after a sign of life.
	mostUnnoticed = 10 * time.Second
)

func cut(r *run, signaling bool) {
	path, s, a, b := r.pair(netpath.Conditions{Delay: pathDelay})
	there, back := a.flow(r.ctx, far, 200, 0, 2*time.Millisecond), b.flow(r.ctx, near, 200, 0, 2*time.Millisecond)
	for _, span := range pick(r, []time.Duration{3 * time.Second, 15 * time.Second, 45 * time.Second}, []time.Duration{3 * time.Second, 8 * time.Second}) {
		r.pause(500 * time.Millisecond)
		path.Set(netpath.Conditions{Loss: 1})
		if signaling {
			s.down()
		}
		r.pause(span)
		r.check(time.Since(a.sink.of(far).last) > span/2, "messages arrive over a path that is cut")
		if signaling {
			s.up()
		}
		path.Set(netpath.Conditions{Delay: pathDelay})
		start := time.Now()
		r.until("messages flow again", func() bool { return a.sink.of(far).last.After(start) && b.sink.of(near).last.After(start) })
		r.took(fmt.Sprintf("after %s flows again", span), time.Since(start), mostBack)
	}
	sent, sentBack := there.halt(), back.halt()
	r.arrived(sent, a, b)
	r.arrived(sentBack, b, a)
	r.check(a.losses()+b.losses() == 0, "peers were reported gone")
	r.say("%d messages", sent+sentBack)
}

func cutForGood(r *run) {
	recovery := pick(r, 60*time.Second, 5*time.Second)
	path, _, a, b := r.pair(netpath.Conditions{Delay: pathDelay}, func(cfg *mesh.Config) { cfg.Network.RecoveryTimeout = recovery })
	ctx, cancel := r.bounded()
	defer cancel()
	errs := make(chan error, 1)
	go func() {
		_, err := a.Request(ctx, far, mesh.Message{Type: held})
		errs <- err
	}()
	r.until("a held request", func() bool { return b.holding.Load() == 1 })
	start := time.Now()
	path.Set(netpath.Conditions{Loss: 1})
	for _, x := range []struct {
		a    *agent
		peer string
	}{{a, far}, {b, near}} {
		var at time.Time
		r.until("the report", func() (ok bool) { at, ok = x.a.goneSince(x.peer, start); return ok })
		r.took("reported", at.Sub(start), recovery+mostUnnoticed)
		r.check(at.Sub(start) >= recovery, "%s was given up after %s, with RecoveryTimeout %s", x.peer, at.Sub(start), recovery)
	}
	err := <-errs
	r.check(errors.Is(err, mesh.ErrPeerGone), "a request ended with %v", err)
	r.say("RecoveryTimeout %s", recovery)
}

func lossy(r *run, c netpath.Conditions, size int) {
	c.Delay = pathDelay
	path, _, a, b := r.pair(netpath.Conditions{Delay: pathDelay})
	path.Set(c)
	count := pick(r, 10_000, 1000)
	start := time.Now()
	there, back := a.flow(r.ctx, far, size, count, 0), b.flow(r.ctx, near, size, count, 0)
	r.arrived(count, a, b)
	r.arrived(count, b, a)
	elapsed := time.Since(start)
	there.halt()
	back.halt()
	_, lost, _ := path.Counts(0)
	r.check(lost > 0, "the path lost nothing")
	r.check(a.losses()+b.losses() == 0, "peers were reported gone")
	r.say("%d messages of %d B each way; %.0f kB/s each way; %d packets lost there", count, size, float64(count*size)/1e3/elapsed.Seconds(), lost)
}
