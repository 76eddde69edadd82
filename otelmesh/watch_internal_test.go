package otelmesh

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/chatixia-ai/mesh"
)

// A told observer notes what is observed.
type told struct {
	noop.Observer
	n    int
	last map[string]int64 // by the id of the peer
}

func (o *told) ObserveInt64(_ metric.Int64Observable, v int64, options ...metric.ObserveOption) {
	o.n++
	set := metric.NewObserveConfig(options).Attributes()
	if peer, ok := set.Value(keyPeer); ok {
		if d, ok := set.Value("network.io.direction"); ok && d.AsString() == "transmit" {
			o.last[peer.AsString()] = v
		}
	}
}

func newWatch(stats func(context.Context) (mesh.Stats, error)) *watch {
	return &watch{stats: stats, id: func() string { return "alice" }, totals: make(map[string]*total)}
}

// A mesh that does not tell its numbers holds up no reader, and its error keeps nothing from being exported.
func TestWatchBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {}))
		began := time.Now()
		w := newWatch(func(ctx context.Context) (mesh.Stats, error) {
			<-ctx.Done()
			return mesh.Stats{}, context.Cause(ctx)
		})
		o := &told{}
		if err := w.collect(context.Background(), o); err != nil || o.n != 0 || time.Since(began) != patience {
			t.Errorf("%v after %v, and %d numbers", err, time.Since(began), o.n)
		}
	})
}

// The mesh is asked when a reader collects, and at no other time.
func TestWatchAsks(t *testing.T) {
	asked := 0
	reader := sdkmetric.NewManualReader()
	c := newConfig([]Option{WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))})
	stats := func(context.Context) (mesh.Stats, error) { asked++; return mesh.Stats{}, nil }
	stop, err := watchStats(c.meter(), stats, func() string { return "alice" })
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		if i == 3 {
			if err := stop(); err != nil {
				t.Error(err)
			}
		}
		if want := min(i, 3); asked != want {
			t.Errorf("asked %d times, want %d", asked, want)
		}
		if err := reader.Collect(t.Context(), &metricdata.ResourceMetrics{}); err != nil {
			t.Error(err)
		}
	}
	if asked != 3 {
		t.Errorf("asked %d times after stop", asked)
	}
}

func TestWatchErrors(t *testing.T) {
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {}))
	for _, err := range []error{mesh.ErrSidecarLost, mesh.ErrClosed, mesh.ErrReplaced, fmt.Errorf("stats: %w", errors.ErrUnsupported), errors.New("other")} {
		w := newWatch(func(context.Context) (mesh.Stats, error) { return mesh.Stats{}, err })
		for range 2 {
			if got := w.collect(context.Background(), &told{}); got != nil {
				t.Errorf("%v: %v", err, got)
			}
		}
		if w.unable != errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%v: %t", err, w.unable)
		}
	}
}

// Those who come later take no place of those who are there.
func TestWatchManyPeers(t *testing.T) {
	began := time.Unix(1000, 0)
	var st mesh.Stats
	w := newWatch(func(context.Context) (mesh.Stats, error) { return st, nil })
	for i := range 4096 {
		st.Peers = append(st.Peers, mesh.PeerStats{Peer: mesh.Peer{ID: fmt.Sprintf("p%04d", 4095-i), Since: began.Add(time.Duration(i))}})
	}
	o := &told{last: make(map[string]int64)}
	if err := w.collect(context.Background(), o); err != nil || len(w.totals) != maxPeers || len(o.last) != maxPeers || w.totals["p4095"] == nil || w.totals["p0000"] != nil {
		t.Errorf("%v, %d peers", err, len(w.totals))
	}
}

// A counter goes on with the next link of a peer, and is forgotten with a peer that is gone.
func TestWatchTotals(t *testing.T) {
	var st mesh.Stats
	w := newWatch(func(context.Context) (mesh.Stats, error) { return st, nil })
	for i, step := range []struct {
		link int64 // when it began; 0 for none
		sent int
		want int64
	}{{1, 5, 5}, {1, 7, 7}, {2, 1, 8}, {2, 3, 10}, {3, 0, 10}, {0, 0, 0}, {4, 2, 2}} {
		st.Peers = nil
		if step.link != 0 {
			st.Peers = []mesh.PeerStats{{Peer: mesh.Peer{ID: "bob", Since: time.Unix(step.link, 0)}, MessagesSent: step.sent, BytesSent: step.sent}}
		}
		o := &told{last: make(map[string]int64)}
		if err := w.collect(context.Background(), o); err != nil || o.last["bob"] != step.want {
			t.Errorf("step %d: %v, %v, want %d", i, err, o.last, step.want)
		}
	}
}

func TestLevel(t *testing.T) {
	for i, h := range []mesh.Hold{"", mesh.HoldOrdered, mesh.HoldNewWork, mesh.HoldAll} {
		if got := level(h); got != int64(i) {
			t.Errorf("%q is %d", h, got)
		}
	}
}

func TestCut(t *testing.T) {
	for in, want := range map[string]string{"abc": "abc", "abcdef": "abcd", "abc\u00e9": "abc", "\xffab": "ab"} {
		if got := cut(in, 4); got != want {
			t.Errorf("%q is %q", in, got)
		}
	}
}
