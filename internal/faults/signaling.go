//go:build linux

package main

import (
	"time"

	"github.com/chatixia-ai/mesh"
)

var signalingRows = []row{
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
