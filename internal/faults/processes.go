//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/chatixia-ai/mesh"
)

var processRows = []row{
	{"sidecar-killed", "sidecars are killed under load: requests fail at once, the mesh is back with all peers, nothing is left", sidecarKilled},
	{"agent-killed", "agents are killed under load, every fourth with its sidecar: sidecar and directory go", agentKilled},
	{"agent-frozen", "an agent stands still while others send to it", func(r *run) { frozen(r, false) }},
	{"sidecar-frozen", "a sidecar stands still while others send to its agent", func(r *run) { frozen(r, true) }},
	{"peer-suspended", "an agent with its sidecar stands still for longer than RecoveryTimeout, as on a laptop that sleeps", suspended},
	{"peer-killed", "an agent is killed with its sidecar: its peers are told, and requests to it fail", peerKilled},
	{"peer-returns", "an agent is killed with its sidecar, and the same id comes back at once", peerReturns},
}

const (
	// killsPerLife is how often one agent's sidecar is killed: of links that a peer makes in a row the fifth waits for 5 s.
	killsPerLife = 3
	// idleWorkers is how many goroutines an agent may keep for further handlers.
	idleWorkers = 4
	// mostAtOnce is the most that a failure without any timer may take on a busy machine.
	mostAtOnce = 250 * time.Millisecond
	// mostOrphan is how long a sidecar whose agent is dead may live.
	mostOrphan = time.Second
	// mostRestart is 2 s and the longest backoff of killsPerLife.
	mostRestart = 2400 * time.Millisecond
)

func sidecarKilled(r *run) {
	s := r.serve()
	bob, carol := r.start(s.url(), "bob"), r.start(s.url(), "carol")
	r.linked(bob, carol)
	kills, failed, messages := pick(r, 100, 12), 0, 0
	var before used
	for done := 0; done < kills; {
		alice := r.start(s.url(), fmt.Sprint("alice", done), inMode(mesh.SelfExec))
		r.linked(alice, bob, carol)
		if done == 0 {
			before = usage()
			before.goroutines += 3 * idleWorkers
		}
		for range min(killsPerLife, kills-done) {
			failed += killSidecar(r, alice, bob, carol)
			done++
		}
		after, ok := settles(before)
		r.check(ok, "after %d kills more is held: before %v, after %v", done, before, after)
		r.check(alice.Close() == nil, "Close after kills")
		<-alice.Done()
		messages += bob.sink.of(alice.id).Got + carol.sink.of(alice.id).Got
		r.until("bob and carol are alone", func() bool { return len(bob.Peers()) == 1 && len(carol.Peers()) == 1 })
	}
	r.check(messages > 0, "no load")
	r.say("%d kills, %d requests failed, %d messages", kills, failed, messages)
}

// killSidecar kills the sidecar of alice while she sends and waits, and returns how many requests failed.
func killSidecar(r *run, alice, bob, carol *agent) int {
	const each = 4
	peers := []*agent{bob, carol}
	ctx, cancel := r.bounded()
	defer cancel()
	var load []*flow
	errs := make(chan error, each*len(peers))
	for _, p := range peers {
		load = append(load, alice.flow(ctx, p.id, 200, 0, 0))
		for range each {
			go func() {
				_, err := alice.Request(ctx, p.id, mesh.Message{Type: held})
				errs <- err
			}()
		}
		r.until("held requests", func() bool { return p.holding.Load() == each })
	}
	start := time.Now()
	r.stop("kill", syscall.Kill(alice.SidecarPID(), syscall.SIGKILL))
	for range cap(errs) {
		err := <-errs
		r.check(errors.Is(err, mesh.ErrSidecarLost), "a request ended with %v", err)
	}
	r.took("requests fail", time.Since(start), mostAtOnce)
	var both sync.WaitGroup
	for _, p := range peers {
		both.Go(func() {
			err := alice.reach(ctx, p.id)
			r.check(err == nil, "after the kill: %v", err)
		})
	}
	both.Wait()
	r.took("linked again", time.Since(start), mostRestart)
	for i, f := range load {
		f.halt()
		r.until("handlers of lost requests end", func() bool { return peers[i].holding.Load() == 0 })
	}
	return cap(errs)
}

func agentKilled(r *run) {
	s := r.serve()
	bob := r.start(s.url(), "bob")
	kills, both := pick(r, 100, 12), 0
	for i := range kills {
		id := fmt.Sprint("alice", i) // links of one id in a row would have to wait
		a := r.spawn(job{URL: s.url(), ID: id, Mode: mesh.SelfExec, Flows: []string{"bob"}})
		r.check(directories() == 1, "%d directories with one agent; those of killed ones are left", directories())
		r.until("load", func() bool { return bob.sink.of(id).Got > 0 })
		if i%4 == 3 {
			both++
			r.stop("kill", syscall.Kill(a.sidecar, syscall.SIGKILL))
			a.kill()
			continue // the next start cleans up
		}
		start := time.Now()
		a.kill()
		r.until("the end of the sidecar", func() bool { return !runs(a.sidecar) })
		took := time.Since(start)
		r.took("sidecar gone", took, mostOrphan)
		r.check(took < 20*mostOrphan, "a sidecar lived on for %s", took)
		r.until("the end of its directory", func() bool { return directories() == 0 })
	}
	// What the last one left is cleaned up by the next start.
	r.spawn(job{URL: s.url(), ID: "alice", Mode: mesh.SelfExec}).leave()
	r.check(directories() == 0, "%d directories are left", directories())
	r.say("%d kills, of them %d with the sidecar", kills, both)
}

// directories returns how many private directories of sidecars there are.
func directories() int {
	all, _ := filepath.Glob(filepath.Join(os.TempDir(), "mesh-*"))
	return len(all)
}

// mostFrozen is the memory that what waits for a peer that stands still may take in all, in bytes.
const mostFrozen = 64 << 20

func frozen(r *run, sidecar bool) {
	span := pick(r, 10*time.Second, 4*time.Second)
	s := r.serve()
	alice, carol := r.start(s.url(), "alice"), r.start(s.url(), "carol")
	bob := r.spawn(job{URL: s.url(), ID: "bob", Mode: mesh.SelfExec})
	r.stop("linking", errors.Join(alice.reach(r.ctx, "bob"), alice.reach(r.ctx, "carol"), carol.reach(r.ctx, "bob")))
	victim := bob.pid()
	if sidecar {
		victim = bob.sidecar
	}
	toBob, toCarol := alice.flow(r.ctx, "bob", 1000, 0, 0), alice.flow(r.ctx, "carol", 1000, 0, time.Millisecond)
	r.pause(time.Second)
	base := resetPeak()
	before := carol.sink.of("alice").Got
	r.pause(span / 4)
	usual := float64(carol.sink.of("alice").Got-before) / (span / 4).Seconds()
	r.freeze(victim)
	during, begin := carol.sink.of("alice").Got, time.Now()
	r.pause(span / 2)
	r.keepsContext("request", func(ctx context.Context) error {
		_, err := alice.Request(ctx, "bob", mesh.Message{Type: held})
		return err
	})
	r.keepsContext("send", func(ctx context.Context) error { return alice.Send(ctx, "bob", mesh.Message{Type: "more"}) })
	r.pause(span - time.Since(begin))
	share := float64(carol.sink.of("alice").Got-during) / time.Since(begin).Seconds() / usual
	_, most := resident(os.Getpid())
	r.thaw(victim)
	sent := toBob.halt()
	r.arrived(toCarol.halt(), alice, carol)
	var st state
	r.until("all messages at bob", func() bool {
		st = bob.state()
		return st.From["alice"].Got >= sent
	})
	r.inOrder(sent, "alice", "bob", st.From["alice"])
	r.check(alice.losses()+carol.losses() == 0, "peers were reported gone")
	r.fair(share)
	r.check(most-base < mostFrozen, "memory grew by %d MB", (most-base)>>20)
	r.say("%s; %d messages; memory +%d MB here, at most %d MB there; another peer %.2f of its rate",
		span, sent, max(0, most-base)>>20, max(st.Most, st.SidecarMost)>>20, share)
}

// mostAwake is after how long a peer that stood still for long responds again.
const mostAwake = 5 * time.Second

func suspended(r *run) {
	recovery := pick(r, 60*time.Second, 3*time.Second)
	s := r.serve()
	for _, first := range pick(r, []bool{true, false}, []bool{true}) { // the first on the mesh answers, the second one offers
		r.do(func(r *run) {
			var alice *agent
			join := func() {
				alice = r.start(s.url(), "alice", func(cfg *mesh.Config) { cfg.Network.RecoveryTimeout = recovery })
			}
			if !first {
				join()
			}
			bob := r.spawn(job{URL: s.url(), ID: "bob", Recovery: recovery})
			if first {
				join()
			}
			r.stop("linking", alice.reach(r.ctx, "bob"))
			start := time.Now()
			r.freeze(bob.pid())
			var at time.Time
			r.until("the report", func() (ok bool) { at, ok = alice.goneSince("bob", start); return ok })
			r.check(at.Sub(start) >= recovery, "reported gone after %s", at.Sub(start))
			r.pause(5 * time.Second)
			r.thaw(bob.pid())
			awake := time.Now()
			r.stop("linking", alice.reach(r.ctx, "bob"))
			r.took("responds again", time.Since(awake), mostAwake)
		})
	}
	r.say("RecoveryTimeout %s", recovery)
}

// keepsContext checks that something that goes to what stands still ends with its context.
func (r *run) keepsContext(what string, f func(context.Context) error) {
	ctx, cancel := context.WithTimeoutCause(r.ctx, 100*time.Millisecond, errShort)
	defer cancel()
	asked := time.Now()
	err := f(ctx)
	r.check(errors.Is(err, errShort), "a %s to what stands still, with a context of 100 ms: %v", what, err)
	r.took(what+" of 100 ms ends", time.Since(asked), mostAtOnce)
}

var errShort = errors.New("100 ms are over")

// mostDead is after how long a peer is known to be dead.
const mostDead = 8 * time.Second

func peerKilled(r *run) {
	const requests = 4
	s := r.serve()
	alice := r.start(s.url(), "alice")
	kills := pick(r, 10, 2)
	for range kills {
		bob := r.spawn(job{URL: s.url(), ID: "bob"})
		r.stop("linking", alice.reach(r.ctx, "bob"))
		ctx, cancel := r.bounded()
		errs := make(chan error, requests)
		for range requests {
			go func() {
				_, err := alice.Request(ctx, "bob", mesh.Message{Type: held})
				errs <- err
			}()
		}
		r.pause(100 * time.Millisecond)
		start := time.Now()
		bob.kill()
		for range requests {
			err := <-errs
			r.check(errors.Is(err, mesh.ErrPeerGone), "a request ended with %v", err)
		}
		r.took("requests fail", time.Since(start), mostDead)
		cancel()
		var at time.Time
		r.until("the report", func() (ok bool) { at, ok = alice.goneSince("bob", start); return ok })
		r.took("reported", at.Sub(start), mostDead)
	}
	r.check(alice.losses() == kills, "%d kills, %d reports", kills, alice.losses())
	r.say("%d kills, %d requests failed", kills, kills*requests)
}

func peerReturns(r *run) {
	s := r.serve()
	alice := r.start(s.url(), "alice")
	kills := pick(r, 20, 4)
	for i := range kills {
		j := job{URL: s.url(), ID: fmt.Sprint("bob", i)}
		bob := r.spawn(j)
		r.stop("linking", alice.reach(r.ctx, j.ID))
		bob.kill()
		killed := time.Now()
		bob = r.spawn(j)
		back := time.Now()
		r.until("the report", func() bool { _, ok := alice.goneSince(j.ID, killed); return ok })
		r.stop("linking", alice.reach(r.ctx, j.ID))
		r.took("linked after it is back", time.Since(back), 2*time.Second)
		r.check(alice.losses() == 2*i+1, "%d reports after kill %d", alice.losses(), i+1)
		bob.leave()
		r.until("alice is alone", func() bool { return len(alice.Peers()) == 0 })
	}
	r.say("%d kills", kills)
}
