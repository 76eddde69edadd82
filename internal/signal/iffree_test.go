package signal_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// A client that wants a free id never takes another's place, and gives its own up to an instance that comes back, even one
// that was started earlier.
func TestIfFree(t *testing.T) {
	cfg, _ := serve(t, "a")
	tool := cfg("a")
	tool.IfFree, tool.Started = true, time.Now()
	agent := cfg("a")
	agent.Started = time.UnixMilli(1000)

	a := newRecorder()
	stop := start(t, signal.New(agent), a)
	a.waitKind(t, "registered")
	r := newRecorder()
	err := signal.New(tool).Run(t.Context(), r)
	if !errors.Is(err, signal.ErrInUse) || !strings.Contains(err.Error(), "in use by another connection") {
		t.Fatalf("Run returned %v, want %v", err, signal.ErrInUse)
	}
	if s := r.waitState(t, signal.Replaced); !errors.Is(s.Err, signal.ErrInUse) || !s.Permanent {
		t.Errorf("status %+v", s)
	}
	select {
	case e := <-a.events:
		t.Errorf("the agent reports %+v", e)
	default:
	}
	stop()

	ended := make(chan error, 1)
	r = newRecorder()
	go func() { ended <- signal.New(tool).Run(t.Context(), r) }()
	r.waitKind(t, "registered")
	start(t, signal.New(agent), a)
	if err := <-ended; !errors.Is(err, signal.ErrReplaced) {
		t.Errorf("with the agent back, Run returned %v", err)
	}
}

// After an outage the connection that has the id may be the client's own: it is tried again for a while.
func TestIfFreeAfterOutage(t *testing.T) {
	f := newFake(t)
	tries := 0
	f.ws = func(ctx context.Context, c *websocket.Conn) {
		if tries++; tries == 1 || tries == 4 {
			_ = register(ctx, c)
			return // an outage
		}
		_ = c.Close(signal.CloseInUse, "in use")
	}
	f.upgrade = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Api-Key") != "" {
			w.WriteHeader(http.StatusUnauthorized)
		} else if c, err := websocket.Accept(w, r, nil); err == nil {
			defer func() { _ = c.CloseNow() }()
			f.ws(r.Context(), c)
		}
	}
	cfg := f.clientConfig()
	cfg.IfFree = true
	c := signal.New(cfg)
	signal.HurryUp(c)
	signal.SetTiming(c, "in use", 100*time.Millisecond)
	r := newRecorder()
	began := time.Now()
	if err := c.Run(t.Context(), r); !errors.Is(err, signal.ErrInUse) || time.Since(began) < 100*time.Millisecond {
		t.Errorf("after %v Run returned %v", time.Since(began), err)
	}
	r.waitKind(t, "registered")
	r.waitKind(t, "registered")
}
