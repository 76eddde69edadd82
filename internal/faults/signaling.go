//go:build linux

package main

import (
	"os"
	"time"

	"github.com/chatixia-ai/mesh"
)

var signalingRows = []row{
	{"signaling-hostile", "the signaling server tells garbage and old messages, thousands a second, late and out of order", signalingHostile},
	{"signaling-restarts", "the signaling server restarts again and again under load, and is down for a while", signalingRestarts},
}

func signalingRestarts(r *run) {
	s := r.serve()
	a, b := r.start(s.url(), near), r.start(s.url(), far)
	r.linked(a, b)
	there, back := a.flow(r.ctx, far, 200, 0, time.Millisecond), b.flow(r.ctx, near, 200, 0, time.Millisecond)
	restarts := pick(r, 50, 5)
	for range restarts {
		s.down()
		r.pause(time.Duration(r.random.IntN(300)) * time.Millisecond)
		s.up()
		r.pause(time.Duration(r.random.IntN(600)) * time.Millisecond)
	}
	s.down()
	down := pick(r, time.Minute, 4*time.Second)
	carol := r.start(s.url(), "carol", func(cfg *mesh.Config) { cfg.WaitSignaling = false })
	r.pause(down)
	s.up()
	start := time.Now()
	for _, x := range []*agent{a, b} {
		r.stop("newcomer", carol.reach(r.ctx, x.id))
	}
	r.took("newcomer linked", time.Since(start), 10*time.Second)
	sent, sentBack := there.halt(), back.halt()
	r.arrived(sent, a, b)
	r.arrived(sentBack, b, a)
	r.check(a.losses()+b.losses() == 0, "peers were reported gone")
	r.say("%d restarts and %s down; %d messages", restarts, down, sent+sentBack)
}

const (
	// mostLied is how much the memory of a sidecar may grow while signaling lies, in bytes: a message has up to 4 MiB, of which
	// parsing makes many times as much, for one message at a time. mostLiar is that of this process, in which are three
	// agents, the server and the liar.
	mostLied, mostLiar = 128 << 20, 384 << 20
	// leastLies is how many lies there are to be for each second, to all agents together.
	leastLies = 500
)

func signalingHostile(r *run) {
	const third, newcomer = "forked", "newcomer"
	s := r.serve()
	l := r.liar(s.url())
	r.later(func() { s.down(); l.Close() })
	// Agents that have come before, so that there are messages about links that are gone.
	r.do(func(r *run) { r.linked(r.start(l.URL(), near), r.start(l.URL(), far), r.start(l.URL(), third)) })
	c := r.start(l.URL(), third, inMode(mesh.SelfExec))
	b, a := r.start(l.URL(), far), r.start(l.URL(), near)
	r.linked(a, b, c)
	load := []*stream{r.stream(a, b), r.stream(a, c), r.stream(b, c)}
	before, beforeThere := resetPeak(), resetPeakOf(c.SidecarPID())
	span := pick(r, 20*time.Second, 4*time.Second)
	late := r.start(l.URL(), newcomer+"1", func(cfg *mesh.Config) { cfg.WaitSignaling = false })
	l.lies(r, span, int64(leastLies*span.Seconds()))
	honest := time.Now()
	_, most := resident(os.Getpid())
	_, mostThere := resident(c.SidecarPID())
	d := r.start(l.URL(), newcomer+"2")
	for _, x := range []*agent{a, b, c} {
		r.stop("newcomer", d.reach(r.ctx, x.id))
	}
	r.took("newcomer linked", time.Since(honest), 10*time.Second)
	if !r.quick {
		// Who came meanwhile was told that the others were not there, and has taken up old offers, each of which takes its time.
		ctx, cancel := r.bounded()
		defer cancel()
		for _, x := range []*agent{a, b, c} {
			r.until("who came meanwhile links", func() bool { return late.Connect(ctx, x.id) == nil })
		}
		r.took("who came meanwhile, on Connect", time.Since(honest), 40*time.Second)
	}
	messages := 0
	for _, s := range load {
		messages += s.end()
	}
	r.check(most-before < raced(mostLiar), "memory here grew by %d MB", (most-before)>>20)
	r.check(mostThere-beforeThere < raced(mostLied), "memory of a sidecar grew by %d MB", (mostThere-beforeThere)>>20)
	r.say("%d lies to 4 agents in %s at least; %d messages; memory +%d MB here, +%d MB in a sidecar",
		l.told.Load(), span, messages, (most-before)>>20, (mostThere-beforeThere)>>20)
}
