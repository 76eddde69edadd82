package mesh

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// A handler finds its mesh before New has returned, and may close it.
func TestCloseFromHandler(t *testing.T) {
	handled := make(chan error, 1)
	m, f := newFakeAgent(t, Config{Handlers: map[string]Handler{
		"end": func(ctx context.Context, msg *Message) (any, error) {
			err := msg.Mesh().Close()
			if ctx.Err() == nil {
				err = errors.New("the handler's context did not end")
			}
			handled <- err
			return nil, nil
		},
	}}, true)
	f.connect("bob")
	f.say(`{"type":"message","payload":{"from_peer":"bob","message":{"type":"end"}}}`)
	if err := testutil.Take(t, "the end of Close", handled); err != nil {
		t.Error(err)
	}
	testutil.Take(t, "the end of the handler", m.Done())
	if p, st := m.Peers(), m.Signaling(); len(p) != 0 || st.State != SignalingClosed || !errors.Is(st.Err, ErrClosed) {
		t.Errorf("after Close: peers %v, signaling %+v", p, st)
	}
}

// Close does not wait for a handler that still runs; Done does.
func TestCloseBesideHandler(t *testing.T) {
	running, release := make(chan struct{}), make(chan struct{})
	m, f := newFakeAgent(t, Config{Handlers: map[string]Handler{
		"work": func(context.Context, *Message) (any, error) {
			close(running)
			<-release
			return nil, nil
		},
	}}, true)
	f.connect("bob")
	f.say(`{"type":"message","payload":{"from_peer":"bob","message":{"type":"work"}}}`)
	testutil.Take(t, "the handler", running)
	closed := make(chan error, 1)
	go func() { closed <- m.Close() }()
	if err := testutil.Take(t, "the end of Close", closed); err != nil {
		t.Error(err)
	}
	select {
	case <-m.Done():
		t.Error("Done is closed while a handler runs")
	default:
	}
	close(release)
	testutil.Take(t, "the end of the handler", m.Done())
}

// Close from ten goroutines, at any moment, is one Close.
func TestCloseTogether(t *testing.T) {
	m, _ := newFakeAgent(t, Config{}, true)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			if err := m.Err(); !errors.Is(err, ErrClosed) {
				t.Errorf("Err after Close: %v", err)
			}
		})
	}
	wg.Wait()
}

// A sidecar that does not drain what it was given, or does not end, keeps Close
// no longer than its bounds.
func TestCloseIsBounded(t *testing.T) {
	for name, tt := range map[string]struct {
		drains, ends bool
		want         time.Duration
	}{
		"at once":      {true, true, 0},
		"not drained":  {false, true, defaultDrainTimeout + drainGrace},
		"does not end": {true, false, defaultDrainTimeout + endTime},
		"neither":      {false, false, defaultDrainTimeout + endTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, f := newFakeAgent(t, Config{}, true)
				f.obstruct(!tt.drains, !tt.ends)
				began := time.Now()
				if err := m.Close(); err != nil {
					t.Error(err)
				}
				if d := time.Since(began); d != tt.want {
					t.Errorf("Close took %v, want %v", d, tt.want)
				}
			})
		})
	}
}
