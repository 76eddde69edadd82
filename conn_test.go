package mesh

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// serve has an agent listen for a service and handle its streams.
func (a *agent) serve(t *testing.T, service string, cfg ListenConfig, handle func(c *Conn)) {
	t.Helper()
	l, err := cfg.Listen(a.Mesh, service)
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("Accept: %v", err)
				}
				return
			}
			work.Go(func() {
				handle(c.(*Conn))
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		work.Wait()
	})
}

func echoBytes(c *Conn) {
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
}

// dialled opens a stream.
func dialled(t *testing.T, a *agent, peer, service string) *Conn {
	t.Helper()
	c, err := a.Dial(bounded(t), peer, service)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*Conn)
}

// throughStream sends bytes over a stream that echoes.
func throughStream(t *testing.T, c *Conn, size int) {
	t.Helper()
	sent := make([]byte, size)
	_, _ = rand.Read(sent)
	var writing sync.WaitGroup
	writing.Go(func() {
		if _, err := c.Write(sent); err != nil {
			t.Error(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Error(err)
		}
	})
	got, err := io.ReadAll(c)
	writing.Wait()
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back: %v", len(got), size, err)
	}
}

func testStreams(t *testing.T, p *pair) {
	p.bob.serve(t, "echo", ListenConfig{}, echoBytes)
	p.alice.serve(t, "echo", ListenConfig{}, echoBytes)
	for _, way := range p.ways() {
		throughStream(t, dialled(t, way[0], way[1].id, "echo"), 1<<20)
	}
	c := dialled(t, p.alice, "bob", "echo")
	if got := c.RemoteAddr().String(); got != "bob:echo" || c.RemoteAddr().Network() != "mesh" || c.Peer().ID != "bob" {
		t.Errorf("RemoteAddr is %s", got)
	}
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || !err.(net.Error).Timeout() {
		t.Errorf("Read after its deadline: %v", err)
	}
	for _, tt := range []struct {
		peer, service string
		want          error
	}{{"bob", "nothing", ErrNoService}, {"nobody", "echo", ErrNotConnected}, {"bob", "", ErrInvalid}, {"bob", "a b", ErrInvalid}} {
		if _, err := p.alice.Dial(bounded(t), tt.peer, tt.service); !errors.Is(err, tt.want) {
			t.Errorf("Dial(%q, %q): %v", tt.peer, tt.service, err)
		}
	}
	p.bob.serve(t, "private", ListenConfig{Allow: func(p Peer) bool { return p.ID != "alice" }}, echoBytes)
	if _, err := p.alice.Dial(bounded(t), "bob", "private"); !errors.Is(err, ErrStreamRefused) {
		t.Errorf("Dial where it is not allowed: %v", err)
	}
	p.bob.serve(t, "broken", ListenConfig{}, func(c *Conn) {
		_, _ = c.Write([]byte("half"))
		_, _ = c.Read(make([]byte, 1))
		c.Reset()
		c.Reset()
	})
	broken := dialled(t, p.alice, "bob", "broken")
	if _, err := io.ReadFull(broken, make([]byte, 4)); err != nil {
		t.Error(err)
	}
	_, _ = broken.Write([]byte("x"))
	if rest, err := io.ReadAll(broken); len(rest) > 0 || !errors.Is(err, ErrStreamReset) {
		t.Errorf("a stream that was given up: %q, %v", rest, err)
	}
	gone, cancel := context.WithCancel(bounded(t))
	cancel()
	if _, err := p.alice.Dial(gone, "bob", "echo"); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial with a context that has ended: %v", err)
	}
	works(t, p.alice, p.bob)
}

// A stream is a net.Conn.
func testNetConn(t *testing.T, p *pair) {
	ways := p.ways()
	if !p.full && !testutil.Full() { // the race detector makes it long
		ways = ways[:1]
	}
	for _, way := range ways {
		l, err := way[1].Listen("nettest")
		if err != nil {
			t.Fatal(err)
		}
		nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
			c1, err = way[0].Dial(bounded(t), way[1].id, "nettest")
			if err != nil {
				return nil, nil, nil, err
			}
			if c2, err = l.Accept(); err != nil {
				_ = c1.Close()
				return nil, nil, nil, err
			}
			return c1, c2, func() { _, _ = c1.Close(), c2.Close() }, nil
		})
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// One listener for each service, whose backlog counts.
func TestListen(t *testing.T) {
	s := newStage(t, "")
	alice, bob := s.start(t, InProcess, "alice"), s.start(t, InProcess, "bob")
	if err := alice.WaitPeer(bounded(t), "bob"); err != nil {
		t.Fatal(err)
	}
	l, err := ListenConfig{Backlog: 2}.Listen(bob.Mesh, "slow")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bob.Listen("slow"); !errors.Is(err, ErrDuplicateService) {
		t.Errorf("Listen again: %v", err)
	}
	for range 2 {
		dialled(t, alice, "bob", "slow")
	}
	if _, err := alice.Dial(bounded(t), "bob", "slow"); !errors.Is(err, ErrTooManyStreams) {
		t.Errorf("Dial with a full backlog: %v", err)
	}
	if _, err := l.Accept(); err != nil {
		t.Error(err)
	}
	testutil.Eventually(t, "room", func() bool {
		c, err := alice.Dial(bounded(t), "bob", "slow")
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	_ = l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
	testutil.Eventually(t, "no listener", func() bool {
		_, err := alice.Dial(bounded(t), "bob", "slow")
		return errors.Is(err, ErrNoService)
	})
}

// Streams end with what they depend on, for a reason that errors.Is finds.
func TestStreamEnds(t *testing.T) {
	sidecar := buildSidecar(t)
	for _, mode := range modesHere() {
		t.Run(mode.String(), func(t *testing.T) {
			s := newStage(t, sidecar)
			bob := s.start(t, InProcess, "bob")
			bob.serve(t, "hold", ListenConfig{}, func(c *Conn) { _, _ = c.Read(make([]byte, 1)) })
			alice := s.start(t, mode, "alice")
			open := func() *Conn {
				if err := alice.WaitPeer(bounded(t), "bob"); err != nil {
					t.Fatal(err)
				}
				return dialled(t, alice, "bob", "hold")
			}
			ends := func(c *Conn, why error) {
				t.Helper()
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, why) {
					t.Errorf("Read: %v; want %v", err, why)
				}
				if _, err := c.Write(make([]byte, 1<<20)); !errors.Is(err, why) {
					t.Errorf("Write: %v; want %v", err, why)
				}
			}
			lost := open()
			alice.sever(t)
			ends(lost, ErrSidecarLost)
			alice.waitEvents(t, "bob", 0, 3) // it has gone, and is back
			gone := open()
			bob.end(t)
			ends(gone, ErrPeerGone)
			alice.waitEvents(t, "bob", 0, 4) // before, Dial finds a link that is ending
			if _, err := alice.Dial(bounded(t), "bob", "hold"); !errors.Is(err, ErrNotConnected) {
				t.Errorf("Dial to who has left: %v", err)
			}
			bob = s.start(t, InProcess, "bob")
			bob.serve(t, "hold", ListenConfig{}, func(c *Conn) { _, _ = c.Read(make([]byte, 1)) })
			own := open()
			l, err := alice.Listen("own")
			if err != nil {
				t.Fatal(err)
			}
			alice.end(t)
			ends(own, ErrClosed)
			if _, err := l.Accept(); !errors.Is(err, ErrClosed) || !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept after the mesh's end: %v", err)
			}
			for name, f := range map[string]func() error{
				"Dial":   func() error { _, err := alice.Dial(bounded(t), "bob", "hold"); return err },
				"Listen": func() error { _, err := alice.Listen("other"); return err },
			} {
				if err := f(); !errors.Is(err, ErrClosed) {
					t.Errorf("%s after the mesh's end: %v", name, err)
				}
			}
		})
	}
}

// What was written before Close of the stream, and of the mesh, arrives.
func TestStreamsAreFlushed(t *testing.T) {
	sidecar := buildSidecar(t)
	for _, mode := range modesHere() {
		t.Run(mode.String(), func(t *testing.T) {
			s := newStage(t, sidecar)
			got := make(chan int, 1)
			bob := s.start(t, InProcess, "bob")
			bob.serve(t, "sink", ListenConfig{}, func(c *Conn) {
				n, err := io.Copy(io.Discard, c)
				if err != nil {
					t.Error(err)
				}
				got <- int(n)
			})
			alice := s.start(t, mode, "alice")
			if err := alice.WaitPeer(bounded(t), "bob"); err != nil {
				t.Fatal(err)
			}
			c := dialled(t, alice, "bob", "sink")
			if _, err := c.Write(make([]byte, 200_000)); err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			alice.end(t)
			if n := <-got; n != 200_000 {
				t.Errorf("%d bytes arrived", n)
			}
		})
	}
}

// Streams that have ended leave nothing behind, and as many as are allowed work at once.
func TestManyStreams(t *testing.T) {
	one, atOnce := 1000, 1000
	switch {
	case raceEnabled(): // bulk shows no other race
		one, atOnce = 50, 50
	case testutil.Full():
		one = 10_000
	}
	for _, mode := range modesHere()[:min(2, len(modesHere()))] {
		t.Run(mode.String(), func(t *testing.T) {
			s := newStage(t, "")
			many := func(cfg *Config) { cfg.Limits.MaxStreams = atOnce }
			bob := s.startAs(t, mode, "bob", Identity{}, many)
			bob.serve(t, "echo", ListenConfig{Backlog: atOnce}, echoBytes)
			alice := s.startAs(t, mode, "alice", Identity{}, many)
			if err := alice.WaitPeer(bounded(t), "bob"); err != nil {
				t.Fatal(err)
			}
			open := func() error {
				c, err := alice.Dial(t.Context(), "bob", "echo")
				if err != nil {
					return err
				}
				_, _ = c.Write([]byte("x"))
				_, err = io.ReadFull(c, make([]byte, 1))
				return errors.Join(err, c.Close())
			}
			if err := open(); err != nil {
				t.Fatal(err)
			}
			before := runtime.NumGoroutine()
			for range one {
				if err := open(); err != nil {
					t.Fatal(err)
				}
			}
			testutil.Eventually(t, "nothing is left", func() bool { return runtime.NumGoroutine() < before+20 })
			for range 3 { // those that were closed at once make room at once
				allAtOnce(t, alice, atOnce)
			}
		})
	}
}

// allAtOnce opens so many streams to bob's echo, sends something through each while all are open, and closes them.
func allAtOnce(t *testing.T, from *agent, streams int) {
	t.Helper()
	var all sync.WaitGroup
	conns := make(chan *Conn, streams)
	for range streams {
		all.Go(func() {
			c, err := from.Dial(t.Context(), "bob", "echo")
			if err != nil {
				t.Error(err)
				return
			}
			conns <- c.(*Conn)
		})
	}
	all.Wait()
	close(conns)
	for c := range conns {
		all.Go(func() {
			throughStream(t, c, 10_000)
			_ = c.Close()
		})
	}
	all.Wait()
}

// Of more streams than there may be, opened at once, as many are as may be, and the others fail for that reason; they cost nothing else.
func TestTooManyAtOnce(t *testing.T) {
	const opens, most = 2000, 128 // the default of Limits.MaxStreams
	for _, mode := range streetModes() {
		t.Run(mode.String(), func(t *testing.T) {
			s := newStreet(t, mode)
			s.bob.serve(t, "echo", ListenConfig{Backlog: most}, echoBytes)
			var all sync.WaitGroup
			conns := make(chan net.Conn, opens)
			for range opens {
				all.Go(func() {
					c, err := s.alice.Dial(bounded(t), "bob", "echo")
					if err == nil {
						conns <- c
					} else if !errors.Is(err, ErrTooManyStreams) {
						t.Error(err)
					}
				})
			}
			all.Wait()
			close(conns)
			if n := len(conns); n != most {
				t.Errorf("%d streams are open, want %d", n, most)
			}
			for c := range conns {
				_ = c.Close()
			}
			throughStream(t, dialled(t, s.alice, "bob", "echo"), 1000)
			works(t, s.alice, s.bob)
		})
	}
}

// Allow is code of the application: it may take its time, and close the mesh.
func TestAllowCloses(t *testing.T) {
	s := newStage(t, "")
	alice, bob := s.start(t, InProcess, "alice"), s.start(t, InProcess, "bob")
	closed := make(chan error, 1)
	if _, err := (ListenConfig{Allow: func(Peer) bool {
		closed <- bob.Close()
		return true
	}}).Listen(bob.Mesh, "x"); err != nil {
		t.Fatal(err)
	}
	if err := alice.WaitPeer(bounded(t), "bob"); err != nil {
		t.Fatal(err)
	}
	if _, err := alice.Dial(bounded(t), "bob", "x"); err == nil {
		t.Error("a stream to a mesh that ends was taken")
	}
	if err := testutil.Take(t, "the end of Close", closed); err != nil {
		t.Error(err)
	}
}
