//go:build linux

package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
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
	{"disk-full", "the same while a disk is full, at each step of a start", apart(diskFull)},
	{"disk-full-identity", "a disk is full when agents pin a key, or keep their id: an error that says so, what is known stays", apart(diskFullIdentity)},
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

func diskFullIdentity(r *run) {
	s := r.serve()
	d := r.mountDisk()
	file := func(name string) string { return filepath.Join(d.path, name) }
	proven := func(id string) func(*mesh.Config) {
		r.stop("key", makeKey(file(id)))
		return func(cfg *mesh.Config) { cfg.Identity.KeyFile, cfg.Identity.MeshName = file(id), "faults" }
	}
	said := &complaint{about: syscall.ENOSPC}
	bob := r.start(s.url(), "bob", proven("bob"))
	ofCarol, ofDave := proven("carol"), proven("dave")
	r.do(func(r *run) { r.linked(r.start(s.url(), "carol", ofCarol), bob) }) // whose id is kept from now on
	alice := r.start(s.url(), "alice", proven("alice"), said.hear, func(cfg *mesh.Config) {
		cfg.Identity.Policy, cfg.Identity.KnownPeersFile = mesh.IdentityKnown, file("known")
	})
	r.linked(alice, bob)
	before := r.contents(d)
	d.fill(2) // empty files, and no byte more
	early, err := newAgent(r.ctx, s.url(), "dave", ofDave)
	if err == nil {
		_ = early.Close()
	}
	r.check(err != nil && strings.Contains(err.Error(), said.about.Error()), "an agent whose id cannot be kept: %v", err)
	carol := r.start(s.url(), "carol", ofCarol)
	r.check(within(r.ctx, patience, func() bool { return said.times.Load() > 0 }), "nothing was said of the key of carol, which cannot be kept")
	ctx, cancel := r.bounded()
	err = alice.Connect(ctx, "carol")
	cancel()
	r.check(err != nil && strings.Contains(err.Error(), said.about.Error()), "Connect to a peer whose key cannot be kept: %v", err)
	r.linked(alice, bob)
	r.check(alice.losses() == 0, "a known peer was reported gone")
	after := r.contents(d)
	for name, content := range before {
		r.check(after[name] == content, "%s has become %q, it was %q", name, after[name], content)
	}
	d.empty()
	start := time.Now()
	dave := r.start(s.url(), "dave", ofDave)
	ctx, cancel = r.bounded()
	defer cancel()
	r.stop("linking", errors.Join(alice.Connect(ctx, "carol"), alice.Connect(ctx, "dave")))
	r.linked(alice, bob, carol, dave)
	r.took("linked, with room again", time.Since(start), 5*time.Second)
	known := r.contents(d)["known"]
	r.check(strings.HasPrefix(known, before["known"]) && strings.Count(known, "\n") == strings.Count(before["known"], "\n")+2, "known peers are %q, they were %q", known, before["known"])
	r.say("%d files stayed as they were", len(before))
}

// contents returns that of each file on a disk, by its name.
func (r *run) contents(d *disk) map[string]string {
	all := make(map[string]string)
	names, _ := filepath.Glob(filepath.Join(d.path, "*"))
	for _, name := range names {
		content, err := os.ReadFile(name)
		r.stop("files", err)
		all[filepath.Base(name)] = string(content)
	}
	return all
}

// makeKey makes a file with a key for Identity.KeyFile.
func makeKey(path string) error {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
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
