//go:build linux

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/chatixia-ai/mesh"
)

var streamRows = []row{
	{"stream-cut", "the path is cut for 15 s in the middle of a stream of 100 MB", streamCut},
	{"stream-peer-killed", "an agent is killed with its sidecar: what waits for its streams fails", streamPeerKilled},
	{"stream-sidecar-killed", "a sidecar is killed: what waits for streams of its agent fails at once, and new ones open", streamSidecarKilled},
}

// sums is a service that returns the checksum of what it gets.
const sums = "sums"

// serveSums serves it until the mesh ends. got counts the bytes.
func serveSums(m *mesh.Mesh, got *atomic.Int64) error {
	l, err := m.Listen(sums)
	if err != nil {
		return err
	}
	go func() { // ends with the mesh, as do its streams
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				sum := sha256.New()
				_, err := io.Copy(io.MultiWriter(sum, counter{got}), c)
				if err == nil {
					_, _ = io.WriteString(c, hex.EncodeToString(sum.Sum(nil)))
				}
			}()
		}
	}()
	return nil
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return len(b), nil
}

// send sends random bytes over a stream to a peer's sums, and returns its checksum, and theirs.
func (r *run) send(from *agent, peer string, size int64) (sent, got string) {
	c, err := from.Dial(r.ctx, peer, sums)
	r.stop("Dial", err)
	defer c.Close()
	sum := sha256.New()
	var seed [32]byte
	_, err = io.CopyN(io.MultiWriter(c, sum), rand.NewChaCha8(seed), size)
	r.stop("writing", err)
	r.stop("CloseWrite", c.(*mesh.Conn).CloseWrite())
	answer, err := io.ReadAll(c)
	r.stop("reading", err)
	return hex.EncodeToString(sum.Sum(nil)), string(answer)
}

func streamCut(r *run) {
	path, _, a, b := r.pair(whole)
	size, span := int64(pick(r, 100<<20, 20<<20)), pick(r, 15*time.Second, 8*time.Second)
	var done atomic.Bool
	var sent, got string
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		sent, got = r.send(a, b.id, size)
		done.Store(true)
	}()
	r.until("half of it", func() bool { return b.summed.Load() > size/2 })
	path.Set(nothing)
	r.pause(span)
	at := b.summed.Load()
	r.check(!done.Load() && at < size, "all has passed over a path that is cut")
	path.Set(whole)
	start := time.Now()
	r.until("bytes flow again", func() bool { return b.summed.Load() > at })
	r.took("flows again", time.Since(start), mostBack)
	r.await("the end", ended)
	r.check(sent == got, "checksums differ: %s and %s", sent, got)
	r.check(a.losses()+b.losses() == 0, "peers were reported gone")
	r.say("%d MB, cut for %s after half of them: complete", size/1e6, span)
}

// waiting opens streams to a peer, and returns the errors with which a read and a write of each end.
func (r *run) waiting(from *agent, peer string, count int) <-chan error {
	errs := make(chan error, 2*count)
	for range count {
		c, err := from.Dial(r.ctx, peer, sums)
		r.stop("Dial", err)
		r.later(func() { _ = c.Close() })
		go func() {
			_, err := io.Copy(io.Discard, c)
			errs <- err
		}()
		go func() { errs <- writeOn(c) }()
	}
	return errs
}

func writeOn(c net.Conn) error {
	for b := make([]byte, 32<<10); ; {
		if _, err := c.Write(b); err != nil {
			return err
		}
	}
}

func streamPeerKilled(r *run) {
	const streams = 4
	s := r.serve()
	alice := r.start(s.url(), "alice")
	kills := pick(r, 10, 2)
	for range kills {
		bob := r.spawn(job{URL: s.url(), ID: "bob"})
		r.stop("linking", alice.reach(r.ctx, "bob"))
		errs := r.waiting(alice, "bob", streams)
		r.pause(100 * time.Millisecond)
		start := time.Now()
		bob.kill()
		for range cap(errs) {
			err := <-errs
			r.check(errors.Is(err, mesh.ErrPeerGone), "a stream ended with %v", err)
		}
		r.took("streams fail", time.Since(start), mostDead)
	}
	r.say("%d kills, %d streams failed both ways", kills, kills*streams)
}

func streamSidecarKilled(r *run) {
	const streams = 4
	s := r.serve()
	bob := r.start(s.url(), "bob")
	kills := pick(r, 9, 3)
	var alice *agent
	for i := range kills {
		if i%killsPerLife == 0 {
			alice = r.start(s.url(), fmt.Sprint("alice", i), inMode(mesh.SelfExec))
		}
		r.linked(alice, bob)
		errs := r.waiting(alice, "bob", streams)
		r.pause(100 * time.Millisecond)
		start := time.Now()
		r.stop("kill", syscall.Kill(alice.SidecarPID(), syscall.SIGKILL))
		for range cap(errs) {
			err := <-errs
			r.check(errors.Is(err, mesh.ErrSidecarLost), "a stream ended with %v", err)
		}
		r.took("streams fail", time.Since(start), mostAtOnce)
		r.stop("after the kill", alice.reach(r.ctx, "bob"))
		sent, got := r.send(alice, "bob", 1<<20)
		r.check(sent == got, "checksums differ after a kill: %s and %s", sent, got)
	}
	r.say("%d kills, %d streams failed both ways", kills, kills*streams)
}
