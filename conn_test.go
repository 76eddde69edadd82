package mesh

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
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
	gone, cancel := context.WithCancel(bounded(t))
	cancel()
	if _, err := p.alice.Dial(gone, "bob", "echo"); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial with a context that has ended: %v", err)
	}
	works(t, p.alice, p.bob)
}

// A stream is a net.Conn.
func testNetConn(t *testing.T, p *pair) {
	for _, way := range p.ways() {
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
