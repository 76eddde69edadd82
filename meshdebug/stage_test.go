package meshdebug

import (
	"context"
	"fmt"
	"hash/fnv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/meshtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit bounds what a test waits for, on a busy machine.
const limit = time.Minute

// A seen is an agent whose links have what those in memory do not: round trip times, and relays.
type seen struct{ *mesh.Mesh }

func (s seen) Stats(ctx context.Context) (mesh.Stats, error) { return statsOfPair(ctx, s.Mesh) }

func statsOfPair(ctx context.Context, m *mesh.Mesh) (mesh.Stats, error) {
	st, err := m.Stats(ctx)
	for i := range st.Peers {
		p := &st.Peers[i]
		h := fnv.New32a()
		_, _ = h.Write([]byte(min(m.ID(), p.ID) + "\n" + max(m.ID(), p.ID)))
		n := h.Sum32()
		p.RTT = time.Duration(300+n%997*n%80_000) * time.Microsecond
		switch n % 9 {
		case 0:
			p.Path = mesh.PathRelayed
		case 1:
			p.Path = mesh.PathLocal
		}
	}
	return st, err
}

// names are those of the agents of a stage.
func names(n int) []string {
	first := []string{"planner", "researcher", "writer", "critic", "browser", "database", "scheduler", "translator", "reviewer", "mailer", "archive"}
	ids := make([]string, 0, n)
	for i := range n {
		if n <= len(first) {
			ids = append(ids, first[i])
		} else {
			ids = append(ids, fmt.Sprintf("agent-%02d", i+1))
		}
	}
	return ids
}

// stage starts n agents that answer, and returns the first.
func stage(t testing.TB, n int) (*meshtest.Network, source) {
	t.Helper()
	net := meshtest.New(t)
	for _, id := range names(n) {
		card := &mesh.Card{Name: "the " + id, Version: "1.2", Skills: []mesh.Skill{{Name: "work"}, {Name: "remember"}}}
		net.Join(id, mesh.Config{Card: card, Handlers: map[string]mesh.Handler{
			StatsQuery: answerFrom(nil, statsOfPair),
			"note":     func(context.Context, *mesh.Message) (any, error) { return nil, nil },
			"slow": func(ctx context.Context, _ *mesh.Message) (any, error) {
				wait(ctx, 200*time.Millisecond)
				return nil, nil
			},
			"work_request": func(ctx context.Context, _ *mesh.Message) (any, error) {
				wait(ctx, 2*time.Second)
				return "done", nil
			},
		}})
	}
	return net, seen{net.Mesh(names(n)[0])}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// load has agents of a stage send each other messages, until the test ends, some of them to one that is slow.
func load(t testing.TB, net *meshtest.Network, n int) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	t.Cleanup(func() { cancel(); all.Wait() })
	ids := names(n)
	flow := func(from, to int, typ string, size int, every time.Duration) {
		m, peer := net.Mesh(ids[from]), ids[to%n]
		all.Go(func() {
			for ctx.Err() == nil {
				if err := m.Send(ctx, peer, mesh.Message{Type: typ, Payload: strings.Repeat("x", size)}); err != nil {
					return
				}
				wait(ctx, every)
			}
		})
	}
	for i := range n {
		flow(i, i+1, "note", 200<<(i%8), 50*time.Millisecond)
		if i%3 == 0 && n > 3 {
			flow(i, i+n/2, "note", 100<<(i%11), 20*time.Millisecond)
			flow(i, i+n/3, "note", 4000, 100*time.Millisecond)
		}
	}
	flow(1, n-1, "slow", 100_000, 0)
	for range 3 {
		all.Go(func() {
			for ctx.Err() == nil {
				if _, err := net.Mesh(ids[0]).Request(ctx, ids[1], mesh.Message{Type: "work_request"}); err != nil {
					return
				}
			}
		})
	}
}
