package mesh

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chatixia-ai/mesh/internal/sidecar"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

func testStats(t *testing.T, p *pair) {
	ctx := bounded(t)
	over, cancel := context.WithCancel(ctx)
	cancel()
	for _, way := range p.ways() {
		if _, err := way[0].Stats(over); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("when it is given up: %v", err)
		}
		if !p.noLocal && !sidecar.InMemory(p.url) {
			testutil.Eventually(t, "a link over a socket", func() bool {
				st, err := way[0].Stats(ctx)
				return err == nil && len(st.Peers) == 1 && st.Peers[0].Path == PathLocal
			})
		}
		st, err := way[0].Stats(ctx) // not the response to the one before
		if err != nil || len(st.Peers) != 1 {
			t.Fatalf("%s: %+v, %v", way[0].id, st, err)
		}
		got := st.Peers[0]
		path, addresses := PathDirect, !sidecar.InMemory(p.url) && p.noLocal // others have none
		if !sidecar.InMemory(p.url) && !p.noLocal {
			path = PathLocal
		}
		if got.Peer != way[0].Peers()[0] || got.Path != path || got.Local.IsValid() != addresses || got.Remote.IsValid() != addresses || got.RTT < 0 {
			t.Errorf("%s has a link %+v", way[0].id, got)
		}
		if st.Signaling.State != SignalingConnected || st.Restarts != 0 {
			t.Errorf("%s: %+v, %d restarts", way[0].id, st.Signaling, st.Restarts)
		}
	}
	countStats(t, p)
	askBeside(t, p)
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if st, err := p.alice.Stats(ctx); err != nil || len(st.Peers) != 1 || st.Peers[0].ID != "bob" {
				t.Errorf("many at once: %+v, %v", st, err)
			}
		})
	}
	all.Wait()
}

// askBeside has numbers asked for while requests come and go.
func askBeside(t *testing.T, p *pair) {
	ctx := bounded(t)
	p.bob.on(t, "beside_request", echo)
	var asking, all sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		asking.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := p.alice.Request(ctx, "bob", Message{Type: "beside_request", Payload: 1}); err != nil {
					t.Error(err)
					return
				}
			}
		})
		all.Go(func() {
			for range 3000 {
				if _, err := p.bob.Stats(ctx); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	close(stop)
	asking.Wait()
}

// countStats checks what is counted.
func countStats(t *testing.T, p *pair) {
	ctx := bounded(t)
	started, end := make(chan struct{}), make(chan struct{})
	p.bob.on(t, "stats_request", func(context.Context, *Message) (any, error) { close(started); <-end; return nil, nil })
	p.bob.serve(t, "stats", ListenConfig{}, echoBytes)
	before := [2]PeerStats{statsOf(t, p.alice, "bob"), statsOf(t, p.bob, "alice")}
	done := ask(ctx, p.alice.Mesh, "bob", Message{Type: "stats_request", Payload: strings.Repeat("x", 1000)})
	testutil.Take(t, "bob's handler", started)
	c := dialled(t, p.alice, "bob", "stats")
	throughStream(t, c, 10_000)
	a, b := statsOf(t, p.alice, "bob"), statsOf(t, p.bob, "alice")
	if a.Pending != 1 || a.Handling != 0 || b.Pending != 0 || b.Handling != 1 {
		t.Errorf("alice has %+v, bob %+v", a, b)
	}
	for i, got := range []PeerStats{a, b} {
		sent, received := got.MessagesSent-before[i].MessagesSent, got.MessagesReceived-before[i].MessagesReceived
		out, in := got.BytesSent-before[i].BytesSent, got.BytesReceived-before[i].BytesReceived
		if i == 1 {
			sent, received, out, in = received, sent, in, out
		}
		if sent != 1 || received != 0 || out < 11_000 || out > 12_000 || in < 10_000 || in > 11_000 {
			t.Errorf("alice has sent %d messages and %d bytes, and got %d and %d, says %d", sent, out, received, in, i)
		}
	}
	close(end)
	if got := testutil.Take(t, "the response", done); got.err != nil {
		t.Error(got.err)
	}
}

func statsOf(t *testing.T, a *agent, peer string) PeerStats {
	t.Helper()
	st, err := a.Stats(bounded(t))
	for _, s := range st.Peers {
		if s.ID == peer {
			return s
		}
	}
	t.Fatalf("%s has no stats of %s: %+v, %v", a.id, peer, st, err)
	return PeerStats{}
}

func TestStatsOfBaseSidecar(t *testing.T) {
	m, _ := newFakeAgent(t, Config{}, false)
	if _, err := m.Stats(bounded(t)); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}

// A call of Stats ends in each of these ways, at that moment and for that reason.
func TestStatsEnds(t *testing.T) {
	given := errors.New("given up")
	for name, tt := range map[string]struct {
		cause func(m *Mesh, f *fakeSidecar, cancel context.CancelCauseFunc)
		want  error
	}{
		"response": {func(_ *Mesh, f *fakeSidecar, _ context.CancelCauseFunc) {
			f.say(`{"type":"stats","payload":{"peers":[]}}`)
		}, nil},
		"given up": {func(_ *Mesh, _ *fakeSidecar, cancel context.CancelCauseFunc) { cancel(given) }, given},
		"sidecar":  {func(_ *Mesh, f *fakeSidecar, _ context.CancelCauseFunc) { f.hangUp() }, ErrSidecarLost},
		"mesh":     {func(m *Mesh, _ *fakeSidecar, _ context.CancelCauseFunc) { m.Close() }, ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, f := newFakeAgent(t, Config{}, true)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				asked := make(chan error, 1)
				go func() {
					_, err := m.Stats(ctx)
					asked <- err
				}()
				if line := f.heard(); line["type"] != "stats" {
					t.Errorf("the agent wrote %v", line)
				}
				tt.cause(m, f, cancel)
				if err := <-asked; !errors.Is(err, tt.want) {
					t.Errorf("it ended with %v", err)
				}
			})
		})
	}
}

func TestStatsAfterClose(t *testing.T) {
	m, _ := newFakeAgent(t, Config{}, true)
	m.Close()
	if _, err := m.Stats(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// What a sidecar that was lost had dropped counts on.
func TestDroppedAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newFakeAgent(t, Config{}, true)
		dropped := func(said int) int {
			t.Helper()
			got := make(chan Stats)
			go func() {
				st, err := m.Stats(t.Context())
				if err != nil {
					t.Error(err)
				}
				got <- st
			}()
			if line := f.heard(); line["type"] != "stats" {
				t.Errorf("the agent wrote %v", line)
			}
			f.say(fmt.Sprintf(`{"type":"stats","payload":{"peers":[],"dropped":%d}}`, said))
			return (<-got).Dropped[DropSidecar]
		}
		if n := dropped(3); n != 3 {
			t.Errorf("%d dropped", n)
		}
		f.hangUp()
		time.Sleep(time.Minute)
		if n := dropped(2); n != 5 {
			t.Errorf("after a restart %d dropped", n)
		}
	})
}

// A restart is counted, with what the lost sidecar had dropped, before the new sidecar is heard.
func TestRestartIsCountedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *Mesh
		seen := make(chan Stats, 1)
		m, f := newFakeAgent(t, Config{Observer: Observer{LinkUp: func(Peer) {
			st, _ := m.statsOf(m.ipc(), wire.Stats{})
			seen <- st
		}}}, true)
		m.statsOf(m.ipc(), wire.Stats{Dropped: 3})
		f.sayWithReady(`{"type":"peer_connected","payload":{"peer_id":"bob"}}`)
		f.hangUp()
		if st := <-seen; st.Restarts != 1 || st.Dropped[DropSidecar] != 3 {
			t.Errorf("%d restarts, %d dropped", st.Restarts, st.Dropped[DropSidecar])
		}
	})
}
