package mesh

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
)

func testStats(t *testing.T, p *pair) {
	ctx := bounded(t)
	over, cancel := context.WithCancel(ctx)
	cancel()
	for _, way := range p.ways() {
		if _, err := way[0].Stats(over); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("when it is given up: %v", err)
		}
		st, err := way[0].Stats(ctx) // not the response to the one before
		if err != nil || len(st.Peers) != 1 {
			t.Fatalf("%s: %+v, %v", way[0].id, st, err)
		}
		got := st.Peers[0]
		if got.Peer != way[0].Peers()[0] || got.Path != PathDirect || !got.Local.IsValid() || !got.Remote.IsValid() || got.RTT < 0 {
			t.Errorf("%s has a link %+v", way[0].id, got)
		}
	}
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
