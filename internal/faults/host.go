//go:build linux

package main

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/chatixia-ai/mesh"
)

var hostRows = []row{
	{"descriptors", "a sidecar is killed while its agent has no descriptors left: the mesh says so, and is back once there are", descriptors},
	{"socket-deleted", "the socket of a sidecar is deleted, and later the sidecar killed", socketDeleted},
}

func descriptors(r *run) {
	s := r.serve()
	bob := r.start(s.url(), "bob")
	var mu sync.Mutex
	said := 0
	alice := r.start(s.url(), "alice", inMode(mesh.SelfExec), func(cfg *mesh.Config) {
		cfg.OnError = func(err error) {
			if errors.Is(err, syscall.EMFILE) {
				mu.Lock()
				said++
				mu.Unlock()
			}
		}
	})
	r.linked(alice, bob)
	var limit syscall.Rlimit
	r.stop("limit", syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	none := limit
	none.Cur = 0
	r.stop("limit", syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none))
	restore := sync.OnceFunc(func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) })
	defer restore()
	r.stop("kill", syscall.Kill(alice.SidecarPID(), syscall.SIGKILL))
	span := pick(r, 20*time.Second, 4*time.Second) // more than six starts would take
	r.pause(span)
	ended := alice.Err()
	restore()
	start := time.Now()
	r.check(ended == nil, "the mesh gave up: %v", ended)
	r.stop("once there are descriptors", alice.reach(r.ctx, "bob"))
	r.took("linked again", time.Since(start), 5*time.Second+mostRestart) // the longest backoff, and a restart
	mu.Lock()
	defer mu.Unlock()
	r.check(said > 0, "nothing was said of the lack of descriptors")
	r.say("%s without descriptors, said %d times", span, said)
}

func socketDeleted(r *run) {
	s := r.serve()
	alice, bob := r.start(s.url(), "alice", inMode(mesh.SelfExec)), r.start(s.url(), "bob")
	r.linked(alice, bob)
	sockets, _ := filepath.Glob(filepath.Join(os.TempDir(), "mesh-*", "s"))
	r.check(len(sockets) == 1, "%d sockets", len(sockets))
	for _, name := range sockets {
		r.stop("socket", os.RemoveAll(filepath.Dir(name)))
	}
	r.linked(alice, bob)
	r.check(alice.losses()+bob.losses() == 0, "peers were reported gone")
	start := time.Now()
	r.stop("kill", syscall.Kill(alice.SidecarPID(), syscall.SIGKILL))
	r.until("the loss", func() bool { return alice.losses() == 1 })
	r.linked(alice, bob)
	r.took("linked again after a kill", time.Since(start), mostRestart)
	r.say("messages passed without it")
}
