//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/chatixia-ai/mesh"
)

var hostRows = []row{
	{"descriptors", "a sidecar is killed while its agent has no descriptors left: the mesh says so, and is back once there are", descriptors},
	{"directory-unwritable", "a sidecar is killed while no directory can be made for the next: the mesh says so, and is back once one can", apart(directoryUnwritable)},
	{"disk-full", "the same while a disk is full, at each step of a start; files of identities stay as they were", apart(diskFull)},
	{"socket-deleted", "the socket of a sidecar is deleted, and later the sidecar killed", socketDeleted},
}

// mostLacking is after how long a mesh is back once there is what was missing: the longest backoff, and a restart.
const mostLacking = 5*time.Second + mostRestart

// A complaint counts what OnError is told of one error.
type complaint struct {
	about error
	times atomic.Int64
}

func (c *complaint) hear(cfg *mesh.Config) {
	cfg.OnError = func(err error) {
		if strings.Contains(err.Error(), c.about.Error()) { // a sidecar's reason is a text
			c.times.Add(1)
		}
	}
}

// lacking kills the sidecar of alice while the host lacks something, until restore is called, and waits until bob is reached again.
func (r *run) lacking(alice *agent, said *complaint, restore func()) (span time.Duration) {
	before := said.times.Load()
	r.stop("kill", syscall.Kill(alice.SidecarPID(), syscall.SIGKILL))
	span = pick(r, 20*time.Second, 4*time.Second) // more than six starts would take
	r.pause(span)
	ended := alice.Err()
	restore()
	start := time.Now()
	r.check(ended == nil, "the mesh gave up: %v", ended)
	r.check(said.times.Load() > before, "nothing was said of %q", said.about)
	r.stop("once it is back", alice.reach(r.ctx, "bob"))
	r.took("linked again", time.Since(start), mostLacking)
	return span
}

func descriptors(r *run) {
	s := r.serve()
	bob := r.start(s.url(), "bob")
	said := &complaint{about: syscall.EMFILE}
	alice := r.start(s.url(), "alice", inMode(mesh.SelfExec), said.hear)
	r.linked(alice, bob)
	var limit syscall.Rlimit
	r.stop("limit", syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	none := limit
	none.Cur = 0
	r.stop("limit", syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none))
	restore := sync.OnceFunc(func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) })
	defer restore()
	span := r.lacking(alice, said, restore)
	r.say("%s without descriptors, said %d times", span, said.times.Load())
}

func directoryUnwritable(r *run) {
	s := r.serve()
	bob := r.start(s.url(), "bob")
	said := &complaint{about: syscall.EROFS}
	alice := r.start(s.url(), "alice", inMode(mesh.SelfExec), said.hear)
	r.linked(alice, bob)
	d := r.mountDisk()
	r.stop("to read only", d.remount(unix.MS_RDONLY, ""))
	span := r.lacking(alice, said, func() { r.stop("to write", d.remount(0, "")) })
	r.check(len(sockets()) == 1, "directories with sockets: %v", sockets())
	r.say("%s with nothing but file systems to read, said %d times", span, said.times.Load())
}

func diskFull(r *run) {
	s := r.serve()
	bob := r.start(s.url(), "bob")
	said := &complaint{about: syscall.ENOSPC}
	var span time.Duration
	// A sidecar takes three files: its directory, the lock, and the socket, which it makes itself.
	rooms := pick(r, []int{0, 1, 2}, []int{0, 2})
	for _, free := range rooms {
		r.do(func(r *run) {
			alice := r.start(s.url(), fmt.Sprint("alice", free), inMode(mesh.SelfExec), said.hear)
			r.linked(alice, bob)
			d := r.mountDisk()
			d.fill(free)
			span = r.lacking(alice, said, d.empty)
			r.check(len(sockets()) == 1, "directories with sockets: %v", sockets())
		})
	}
	r.say("%s with room for %d of 3 files, said %d times", span, rooms, said.times.Load())
}

// sockets returns the sockets of sidecars in the temporary directory.
func sockets() []string {
	names, _ := filepath.Glob(filepath.Join(os.TempDir(), "mesh-*", "s"))
	return names
}

func socketDeleted(r *run) {
	s := r.serve()
	alice, bob := r.start(s.url(), "alice", inMode(mesh.SelfExec)), r.start(s.url(), "bob")
	r.linked(alice, bob)
	names := sockets()
	r.check(len(names) == 1, "sockets: %v", names)
	for _, name := range names {
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
