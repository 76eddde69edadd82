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
	{"cut-one-way", "the same, one direction at a time", cutOneWay},
	{"flapping", "a path comes and goes while its restarts are under way, with signaling down in between", flapping},
	{"cut-for-good", "the path stays cut: both ends are told", cutForGood},
	{"cut-to-the-bound", "the path comes back shortly before and after both ends give it up", cutToTheBound},
	{"roam", "a host loses its address and gets another one, under load", apart(roam)},
	{"loss-1", "1 % of the packets are lost, both ways under load", func(r *run) { lossy(r, netpath.Conditions{Loss: 0.01}, 1000) }},
	{"loss-5", "5 % of them", func(r *run) { lossy(r, netpath.Conditions{Loss: 0.05}, 1000) }},
	{"loss-20", "20 % of them", func(r *run) { lossy(r, netpath.Conditions{Loss: 0.2}, 200) }},
	{"reordering", "10 % of the packets come late, and 1 % are lost", func(r *run) { lossy(r, netpath.Conditions{Reorder: 0.1, Loss: 0.01}, 1000) }},
	{"duplication", "10 % of them come twice, 10 % late, and 1 % are lost", func(r *run) { lossy(r, netpath.Conditions{Duplicate: 0.1, Reorder: 0.1, Loss: 0.01}, 1000) }},
}

const (
	// pathDelay is that of a path, one way.
	pathDelay = 10 * time.Millisecond
	// mostBack is after how long messages flow again once a path is back.
	mostBack = 3 * time.Second
	// mostRelinked is after how long they do where the link was given up.
	mostRelinked = 5 * time.Second
	// mostUnnoticed is how much longer than RecoveryTimeout a peer that is cut off may count as there: until ICE has noticed,
	// and for 5 s more after a sign of life.
	mostUnnoticed = 10 * time.Second
)

var (
	whole   = netpath.Conditions{Delay: pathDelay}
	nothing = netpath.Conditions{Loss: 1}
)

// A stream is load both ways between two agents.
type stream struct {
	r           *run
	a, b        *agent
	there, back *flow
}

const streamInterval = 2 * time.Millisecond

func (r *run) stream(a, b *agent) *stream {
	return &stream{r, a, b, a.flow(r.ctx, b.id, 200, 0, streamInterval), b.flow(r.ctx, a.id, 200, 0, streamInterval)}
}

// flowsSince reports whether messages have arrived at both ends since start.
func (s *stream) flowsSince(start time.Time) bool {
	return s.a.sink.of(s.b.id).last.After(start) && s.b.sink.of(s.a.id).last.After(start)
}

// flowsAgain blocks until messages arrive at both ends, and notes how long that took.
func (s *stream) flowsAgain(what string, most time.Duration) {
	start := time.Now()
	s.r.until("messages flow again", func() bool { return s.flowsSince(start) })
	s.r.took(what+" flows again", time.Since(start), most)
}

// disorder returns how many messages are missing or came twice or out of order.
func (s *stream) disorder() int {
	there, back := s.b.sink.of(s.a.id), s.a.sink.of(s.b.id)
	return there.Missing + there.Late + back.Missing + back.Late
}

// end checks that all has arrived, and that nobody was told of anything. It returns how many messages there were.
func (s *stream) end() int {
	sent, sentBack := s.there.halt(), s.back.halt()
	s.r.arrived(sent, s.a, s.b)
	s.r.arrived(sentBack, s.b, s.a)
	s.r.check(s.a.losses()+s.b.losses() == 0, "peers were reported gone")
	return sent + sentBack
}

func cut(r *run, signaling bool) {
	path, s, a, b := r.pair(whole)
	load := r.stream(a, b)
	for _, span := range pick(r, []time.Duration{3 * time.Second, 15 * time.Second, 45 * time.Second}, []time.Duration{3 * time.Second, 8 * time.Second}) {
		r.pause(500 * time.Millisecond)
		path.Set(nothing)
		if signaling {
			s.down()
		}
		r.pause(span)
		r.check(time.Since(a.sink.of(far).last) > span/2, "messages arrive over a path that is cut")
		if signaling {
			s.up()
		}
		path.Set(whole)
		load.flowsAgain(fmt.Sprintf("after %s", span), mostBack)
	}
	r.say("%d messages", load.end())
}

func cutOneWay(r *run) {
	path, _, a, b := r.pair(whole)
	load := r.stream(a, b)
	one := func(end int, span time.Duration) {
		from, to := []*agent{a, b}[end], []*agent{b, a}[end]
		r.pause(500 * time.Millisecond)
		path.SetOne(end, nothing)
		r.pause(span)
		r.check(time.Since(to.sink.of(from.id).last) > span/2, "messages arrive over a direction that is cut")
		path.SetOne(end, whole)
		load.flowsAgain(fmt.Sprintf("after %s", span), mostBack)
	}
	if r.quick {
		one(0, 3*time.Second)
		one(1, 8*time.Second)
	} else {
		for _, span := range []time.Duration{3 * time.Second, 15 * time.Second, 45 * time.Second} {
			one(0, span)
			one(1, span)
		}
	}
	r.say("%d messages", load.end())
}

func cutForGood(r *run) {
	recovery := pick(r, 60*time.Second, 5*time.Second)
	path, _, a, b := r.pair(whole, func(cfg *mesh.Config) { cfg.Network.RecoveryTimeout = recovery })
	ctx, cancel := r.bounded()
	defer cancel()
	errs := make(chan error, 1)
	go func() {
		_, err := a.Request(ctx, far, mesh.Message{Type: held})
		errs <- err
	}()
	r.until("a held request", func() bool { return b.holding.Load() == 1 })
	start := time.Now()
	path.Set(nothing)
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

// cutToTheBound has the path return at moments around RecoveryTimeout. Before it nothing is lost; after it the two are linked, by a
// restart or anew.
func cutToTheBound(r *run) {
	recovery := pick(r, 60*time.Second, 4*time.Second)
	path, _, a, b := r.pair(whole, func(cfg *mesh.Config) { cfg.Network.RecoveryTimeout = recovery })
	load := r.stream(a, b)
	restarted, lost := 0, 0
	for _, late := range pick(r, []time.Duration{-2, -1, 0, 1, 2, 4, 6, 8, 10, 12}, []time.Duration{-1, 8}) {
		late *= time.Second
		r.pause(time.Second)
		gone, disorder := a.losses()+b.losses(), load.disorder()
		path.Set(nothing)
		r.pause(recovery + late)
		path.Set(whole)
		start := time.Now()
		r.until("messages flow again", func() bool { return load.flowsSince(start) })
		took := time.Since(start)
		if a.losses()+b.losses() == gone {
			restarted++
			r.took("flows again", took, mostBack)
			r.check(load.disorder() == disorder, "no peer was reported gone, and %d messages are missing or out of order", load.disorder()-disorder)
		} else {
			lost++
			r.check(late > 0, "reported gone, although the path was back %s after the cut", recovery+late)
			r.took("linked anew", took, mostRelinked)
		}
	}
	load.there.halt()
	load.back.halt()
	r.say("RecoveryTimeout %s; %d restarted, %d linked anew", recovery, restarted, lost)
}

func lossy(r *run, c netpath.Conditions, size int) {
	c.Delay = pathDelay
	path, _, a, b := r.pair(whole)
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
	if c.Duplicate > 0 {
		r.check(path.Doubled(0) > 0, "the path sent nothing twice")
		r.say("%d packets twice", path.Doubled(0))
	}
	r.check(a.losses()+b.losses() == 0, "peers were reported gone")
	r.say("%d messages of %d B each way; %.0f kB/s each way; %d packets lost there", count, size, float64(count*size)/1e3/elapsed.Seconds(), lost)
}
