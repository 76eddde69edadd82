//go:build !js

package meshtest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/meshtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func shout(_ context.Context, from mesh.Peer, text string) (string, error) {
	return text + "!, " + from.ID, nil
}

func TestCall(t *testing.T) {
	n := meshtest.New(t, "alice", "bob")
	if err := n.Mesh("bob").Handle("shout_request", mesh.Typed(shout)); err != nil {
		t.Fatal(err)
	}
	got, err := mesh.Call[string](t.Context(), n.Mesh("alice"), "bob", "shout_request", "hi")
	if got != "hi!, alice" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestStreams(t *testing.T) {
	n := meshtest.New(t, "alice", "bob")
	l, err := n.Mesh("bob").Listen("echo")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()
	c, err := n.Mesh("alice").Dial(t.Context(), "bob", "echo")
	if err != nil {
		t.Fatal(err)
	}
	sent := make([]byte, 5<<20)
	go func() {
		_, _ = c.Write(sent)
		_ = c.(*mesh.Conn).CloseWrite()
	}()
	if got, err := io.ReadAll(c); len(got) != len(sent) || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	_ = c.Close()
}

// An outage that is shorter than the recovery timeout costs time, in a bubble none.
func TestCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := meshtest.New(t, "alice", "bob")
		alice := n.Mesh("alice")
		if err := n.Mesh("bob").Handle("shout_request", mesh.Typed(shout)); err != nil {
			t.Fatal(err)
		}
		call := func() (time.Duration, error) {
			began := time.Now()
			_, err := mesh.Call[string](t.Context(), alice, "bob", "shout_request", "hi")
			return time.Since(began), err
		}
		n.Cut("alice", "bob")
		time.AfterFunc(20*time.Second, func() { n.Heal("bob", "alice") })
		if took, err := call(); took != 20*time.Second || err != nil {
			t.Errorf("over a path that was cut for 20 s: %s, %v", took, err)
		}
		n.Cut("alice", "bob")
		if took, err := call(); took != 30*time.Second || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("over a path that is cut: %s, %v", took, err)
		}
		if took, err := call(); took != 30*time.Second || !errors.Is(err, mesh.ErrPeerGone) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("until the peer is given up: %s, %v", took, err)
		}
		synctest.Wait()
		if _, err := call(); !errors.Is(err, mesh.ErrNotConnected) {
			t.Errorf("to a peer that was given up: %v", err)
		}
		n.Heal("alice", "bob")
		if err := alice.WaitPeer(t.Context(), "bob"); err != nil {
			t.Fatal(err)
		}
		n.Delay(3 * time.Second)
		if took, err := call(); took != 6*time.Second || err != nil {
			t.Errorf("with a delay of 3 s: %s, %v", took, err)
		}
	})
}

// A link that was given up is made again when the path is healed, and not before.
func TestCutForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := meshtest.New(t, "alice", "bob")
		n.Cut("alice", "bob")
		time.Sleep(10 * time.Minute)
		for range 3 {
			if m := n.Mesh("alice"); len(m.Peers()) > 0 {
				t.Errorf("over a path that is cut: %v", m.Peers())
			}
			n.Cut("alice", "bob") // again
			time.Sleep(10 * time.Minute)
		}
		n.Heal("alice", "bob")
		if err := n.Mesh("alice").WaitPeer(t.Context(), "bob"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if peers := n.Mesh("alice").Peers(); len(peers) != 1 {
			t.Errorf("after the path was healed: %v", peers)
		}
	})
}

// An agent that was killed may be started again at once, whichever it was.
func TestKillAndJoin(t *testing.T) {
	for _, id := range []string{"alice", "bob", "carol"} {
		synctest.Test(t, func(t *testing.T) {
			n := meshtest.New(t, "alice", "bob", "carol")
			n.Kill(id)
			n.Join(id, mesh.Config{Handlers: map[string]mesh.Handler{"shout_request": mesh.Typed(shout)}})
			time.Sleep(time.Minute)
			for _, other := range []string{"alice", "bob", "carol"} {
				if peers := n.Mesh(other).Peers(); len(peers) != 2 {
					t.Errorf("%s killed: %s sees %v", id, other, peers)
				}
				if other == id {
					continue
				}
				if _, err := mesh.Call[string](t.Context(), n.Mesh(other), id, "shout_request", "hi"); err != nil {
					t.Errorf("%s asks %s: %v", other, id, err)
				}
			}
		})
	}
}

// A tester is a test whose failure is looked at.
type tester struct {
	testing.TB
	failed string
}

func (t *tester) Helper()           {}
func (t *tester) Fatal(args ...any) { t.Fatalf("%s", fmt.Sprint(args...)) }
func (t *tester) Fatalf(format string, args ...any) {
	t.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// A test with an id that means nothing fails, or it would test nothing.
func TestBadIDs(t *testing.T) {
	for name, do := range map[string]func(n *meshtest.Network){
		"cut of nobody":  func(n *meshtest.Network) { n.Cut("alice", "bbo") },
		"heal of nobody": func(n *meshtest.Network) { n.Heal("bbo", "alice") },
		"cut of one":     func(n *meshtest.Network) { n.Cut("alice", "alice") },
		"heal of one":    func(n *meshtest.Network) { n.Heal("alice", "alice") },
		"no id":          func(n *meshtest.Network) { n.Join("", mesh.Config{}) },
		"kill of nobody": func(n *meshtest.Network) { n.Kill("bbo") },
	} {
		fake := &tester{TB: t}
		n := meshtest.New(fake, "alice", "bob")
		done := make(chan struct{})
		go func() { defer close(done); do(n) }()
		if <-done; !strings.HasPrefix(fake.failed, "meshtest: ") {
			t.Errorf("%s: failed with %q", name, fake.failed)
		}
	}
}

// A second instance takes the place of the first at once, for all peers.
func TestReplace(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			n := meshtest.New(t, "alice", "bob", "carol")
			time.Sleep(time.Second)
			first := n.Mesh("bob")
			n.Join("bob", mesh.Config{Handlers: map[string]mesh.Handler{"shout_request": mesh.Typed(shout)}})
			<-first.Done()
			if err := first.Err(); !errors.Is(err, mesh.ErrReplaced) {
				t.Errorf("the first one ended with %v", err)
			}
			for _, id := range []string{"alice", "carol"} {
				if got, err := mesh.Call[string](t.Context(), n.Mesh(id), "bob", "shout_request", "hi"); got != "hi!, "+id || err != nil {
					t.Errorf("%s: %q, %v", id, got, err)
				}
			}
		})
	}
}

// A peer that is killed says nothing.
func TestKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := meshtest.New(t, "bob", "carol")
		gone := make(chan mesh.PeerEvent, 9)
		n.Join("alice", mesh.Config{OnPeer: func(e mesh.PeerEvent) {
			if !e.Connected {
				gone <- e
			}
		}})
		began := time.Now()
		n.Kill("bob")
		if e := <-gone; e.ID != "bob" || !errors.Is(e.Err, mesh.ErrPeerGone) || time.Since(began) < time.Second {
			t.Errorf("%+v after %s", e, time.Since(began))
		}
		began = time.Now()
		if err := n.Mesh("carol").Close(); err != nil {
			t.Error(err)
		}
		if e := <-gone; e.ID != "carol" || time.Since(began) > time.Second {
			t.Errorf("%+v after %s", e, time.Since(began))
		}
		n.Join("bob", mesh.Config{})
	})
}

func BenchmarkNew(b *testing.B) {
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		b.StartTimer()
		meshtest.New(b, fmt.Sprint("a", i), fmt.Sprint("b", i))
	}
}

// An agent is linked to all others when Join returns, however soon one comes after the other.
func TestJoinReturnsLinked(t *testing.T) {
	for range 100 {
		n := meshtest.New(t)
		for i, id := range []string{"alice", "bob", "carol"} {
			if got := len(n.Join(id, mesh.Config{}).Peers()); got != i {
				t.Fatalf("%s has %d peers, want %d", id, got, i)
			}
		}
	}
}
