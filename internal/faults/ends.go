//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh"
)

var endRows = []row{
	{"close", "Close from ten goroutines and from a handler, at any moment under load: it returns in time, once, and leaves nothing", closes},
	{"close-unsent", "Close beside a peer that stands still tells what may not have arrived", closeUnsent},
}

// mostClose is the bound of Close: the default DrainTimeout, and what its documentation adds to it.
const mostClose = 6500 * time.Millisecond

func closes(r *run) {
	const callers = 10
	s := r.serve()
	bob := r.start(s.url(), "bob")
	times := pick(r, 200, 24)
	for i := range times {
		mode := []mesh.Mode{mesh.InProcess, mesh.SelfExec}[i%2]
		began, handled := make(chan struct{}), make(chan struct{})
		id := fmt.Sprint("alice", i) // links of one id in a row would have to wait
		alice, err := newAgent(r.ctx, s.url(), id, inMode(mode), func(cfg *mesh.Config) {
			cfg.WaitSignaling = i%3 > 0
			cfg.Handlers["end"] = func(_ context.Context, msg *mesh.Message) (any, error) {
				defer close(handled)
				close(began)
				return nil, msg.Mesh().Close()
			}
		})
		r.stop("alice", err)
		fromHandler := i%4 == 0
		load := alice.flow(r.ctx, "bob", 200, 0, time.Microsecond)
		if fromHandler {
			r.stop("linking", bob.reach(r.ctx, id))
			r.stop("message", bob.Send(r.ctx, id, mesh.Message{Type: "end"}))
			r.await("the handler", began)
		} else {
			close(handled)
			r.pause(time.Duration(r.random.IntN(60_000)) * time.Microsecond)
		}
		var all sync.WaitGroup
		start := time.Now()
		for range callers {
			all.Go(func() {
				err := alice.Close()
				r.check(err == nil, "Close: %v", err)
			})
		}
		all.Wait()
		took := time.Since(start)
		r.took("Close", took, mostClose)
		r.check(took < patience, "Close took %s", took)
		r.await("the end of the handler", handled)
		r.await("Done", alice.Done())
		r.check(errors.Is(alice.Err(), mesh.ErrClosed), "Err is %v", alice.Err())
		load.halt()
		err = alice.Send(r.ctx, "bob", mesh.Message{Type: numbered})
		r.check(errors.Is(err, mesh.ErrClosed), "Send after Close: %v", err)
	}
	r.until("bob is alone", func() bool { return len(bob.Peers()) == 0 })
	r.say("%d times from %d goroutines, every fourth from a handler first", times, callers)
}

func closeUnsent(r *run) {
	const count = 1000
	s := r.serve()
	bob := r.spawn(job{URL: s.url(), ID: "bob"})
	carol := r.start(s.url(), "carol")
	alice := r.start(s.url(), "alice")
	r.stop("linking", errors.Join(alice.reach(r.ctx, "bob"), alice.reach(r.ctx, "carol")))
	r.freeze(bob.pid())
	defer r.thaw(bob.pid())
	for _, to := range []string{"bob", "carol"} {
		r.await("messages are accepted", alice.flow(r.ctx, to, 100, count, 0).ended)
	}
	start := time.Now()
	err := alice.Close()
	r.took("Close", time.Since(start), mostClose)
	var unsent *mesh.UnsentError
	if !errors.As(err, &unsent) || len(unsent.Peers) != 1 {
		r.check(false, "Close returned %v", err)
		return
	}
	told := unsent.Peers[0]
	r.check(told.Peer == "bob" && told.Messages >= count && told.Messages <= count+2, "told of %d messages to %s", told.Messages, told.Peer)
	r.check(carol.sink.of("alice").Got == count, "of %d messages to another peer %d arrived", count, carol.sink.of("alice").Got)
	r.say("%d messages accepted for a peer that stands still, told of %d; %d to another one arrived", count, told.Messages, count)
}
