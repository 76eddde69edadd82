package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chatixia-ai/mesh/internal/link"
	"github.com/chatixia-ai/mesh/internal/sidecar"
	"github.com/chatixia-ai/mesh/internal/wire"
)

func TestRestarts(t *testing.T) {
	const gaveUp = -1
	ms := func(n ...int) []time.Duration {
		d := make([]time.Duration, len(n))
		for i, n := range n {
			d[i] = time.Duration(n) * time.Millisecond
		}
		return d
	}
	for _, tc := range []struct {
		name    string
		mode    Mode
		uptimes []time.Duration
		most    []time.Duration // the longest wait after each; the shortest is half of it
	}{
		{"doubles and gives up", SelfExec, ms(0, 0, 0, 0, 0, 0, 0), ms(50, 100, 200, 400, 800, gaveUp, gaveUp)},
		{"binary too", Binary, ms(9999, 9999, 9999, 9999, 9999, 9999), ms(50, 100, 200, 400, 800, gaveUp)},
		{"a long life starts over", SelfExec, ms(0, 0, 0, 0, 0, 10000, 0, 0), ms(50, 100, 200, 400, 800, 50, 50, 100)},
		{"and five short ones follow it", SelfExec, ms(10000, 0, 0, 0, 0, 0, 0), ms(50, 50, 100, 200, 400, 800, gaveUp)},
		{"only long lives", Binary, ms(10000, 60000, 10000, 10000, 10000, 10000, 10000), ms(50, 50, 50, 50, 50, 50, 50)},
		{"attach never gives up", Attach, ms(0, 0, 0, 0, 0, 0, 0, 0, 0, 0), ms(50, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000)},
		{"nor does in-process", InProcess, ms(1, 1, 1, 1, 1, 1, 1), ms(50, 100, 200, 400, 800, 1600, 3200)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRestarts(tc.mode)
			for i, up := range tc.uptimes {
				delay, giveUp := r.next(up)
				most := tc.most[i]
				if giveUp != (most < 0) {
					t.Fatalf("end %d after %v: giveUp = %t", i+1, up, giveUp)
				}
				if !giveUp && (delay < most/2 || delay > most) {
					t.Errorf("end %d after %v: wait %v, want %v to %v", i+1, up, delay, most/2, most)
				}
			}
		})
	}
}

func TestRestartsJitter(t *testing.T) {
	seen := make(map[time.Duration]bool)
	for range 20 {
		r := newRestarts(Attach)
		d, _ := r.next(0)
		seen[d] = true
	}
	if len(seen) < 2 {
		t.Error("20 agents that lost their sidecars together would all come back together")
	}
}

// A sidecar that is slow to start is no crash, however often: a host that was slow for a while gets its sidecar.
func TestSlowRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slow = 3 * maxShortLives
		var starts int
		links := make(chan *link.Link, 2)
		reported := make(chan error, 2*slow)
		m, err := newMesh(t.Context(), Config{
			Mode: SelfExec, SignalingURL: "ws://127.0.0.1:1/ws", OnError: func(err error) { reported <- err },
		}, func(ctx context.Context, cfg *Config, _ sidecar.Settings) (*launched, error) {
			if starts++; starts > 1 && starts <= 1+slow {
				<-ctx.Done()
				return nil, &StartError{Mode: cfg.Mode, Path: "slow", Err: fmt.Errorf("it did not listen in time: %w", context.Cause(ctx))}
			}
			agent, side := link.Pipe()
			links <- side
			var serving sync.WaitGroup
			serving.Go(side.Run)
			serving.Go(func() {
				side.Serve(func(line []byte, err error) bool {
					if bytes.Contains(line, []byte("list_peers")) {
						_ = side.WriteNow(nil, func(b []byte) []byte { return wire.AppendPeerList(b, wire.PeerList{}) })
					}
					return err == nil
				})
			})
			return &launched{
				link: agent, path: "fake", diagnose: func() error { return nil },
				stop: func(context.Context) { side.Close(); serving.Wait() },
			}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		(<-links).Close() // one crash
		for len(links) == 0 {
			select {
			case err := <-reported:
				if !errors.Is(err, ErrSidecarLost) && !errors.Is(err, errNotReady) {
					t.Errorf("reported %v", err)
				}
			case <-m.Done():
				t.Fatalf("the mesh ended: %v", m.Err())
			case <-time.After(time.Minute):
			}
			synctest.Wait()
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
}

// New follows its context: the start has as long as that lasts, and 5 s without a deadline.
func TestStartFollowsContext(t *testing.T) {
	for name, tc := range map[string]struct {
		limit, want time.Duration
	}{"a minute": {time.Minute, time.Minute}, "no deadline": {0, startTimeout}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if tc.limit > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tc.limit)
					defer cancel()
				}
				began := time.Now()
				_, err := newMesh(ctx, Config{SignalingURL: "ws://127.0.0.1:1/ws"}, func(ctx context.Context, _ *Config, _ sidecar.Settings) (*launched, error) {
					<-ctx.Done()
					return nil, context.Cause(ctx)
				})
				if took := time.Since(began); took != tc.want || err == nil {
					t.Errorf("New returned after %v: %v", took, err)
				}
			})
		})
	}
}
