// Debug starts agents that work, and serves a page that draws them. See docs/observability.md.
//
//	go run ./examples/debug [-agents N] [-idle] [-addr ADDRESS]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/meshdebug"
	"github.com/chatixia-ai/mesh/signaling"
)

func main() {
	agents := flag.Int("agents", 5, "how many agents there are")
	idle := flag.Bool("idle", false, "have them do nothing")
	addr := flag.String("addr", "127.0.0.1:0", "serve at this `address` of this machine")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, *addr, *agents, !*idle); err != nil {
		fmt.Fprintln(os.Stderr, "debug:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, out io.Writer, addr string, count int, busy bool) error {
	server, err := signaling.New(signaling.Config{Dev: true})
	if err != nil {
		return err
	}
	defer server.Close()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/", server) // /ws and what belongs to it
	web := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(listener) }()
	defer web.Close()

	ids := names(count)
	var working sync.WaitGroup
	defer working.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i, id := range ids {
		m, err := mesh.New(ctx, mesh.Config{
			SignalingURL: "ws://" + listener.Addr().String() + "/ws", APIKey: id, WaitSignaling: true,
			Card: &mesh.Card{Name: "the " + id, Version: "1.0", Skills: []mesh.Skill{{Name: "work", Description: "says it louder"}}},
			Handlers: map[string]mesh.Handler{
				"work_request":       mesh.Typed(work),
				"note":               func(context.Context, *mesh.Message) (any, error) { return nil, nil },
				meshdebug.StatsQuery: meshdebug.AnswerHandler(nil), // every peer may see the links of this agent
			},
		})
		if err != nil {
			return err
		}
		defer m.Close()
		if i == 0 {
			mux.Handle("/debug/mesh/", meshdebug.Handler(m))
		}
		if busy {
			working.Go(func() { keepBusy(ctx, m, ids, i) })
		}
	}
	fmt.Fprintf(out, "open http://%s/debug/mesh/ in a browser, or run: SIGNALING_URL=ws://%[1]s/ws mesh top\n", listener.Addr())
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
		return nil
	}
}

func names(count int) []string {
	ids := []string{"planner", "researcher", "writer", "critic", "browser", "database", "scheduler", "translator", "reviewer", "mailer", "archive"}
	for i := len(ids); i < count; i++ {
		ids = append(ids, fmt.Sprintf("agent-%02d", i+1))
	}
	return ids[:max(1, count)]
}

// work takes a while.
func work(ctx context.Context, _ mesh.Peer, text string) (string, error) {
	select {
	case <-time.After(time.Duration(len(text)) * 50 * time.Microsecond):
		return strings.ToUpper(text), nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// keepBusy has an agent send notes to some peers, and ask others to work, until ctx ends.
func keepBusy(ctx context.Context, m *mesh.Mesh, ids []string, i int) {
	for ctx.Err() == nil {
		peer := ids[(i+1+rand.IntN(3)*rand.IntN(3))%len(ids)]
		text := strings.Repeat("lorem ipsum ", 1+rand.IntN(1000))
		var err error
		if i%2 == 0 {
			_, err = mesh.Call[string](ctx, m, peer, "work_request", text)
		} else {
			err = m.Send(ctx, peer, mesh.Message{Type: "note", Payload: text})
		}
		if err != nil && !errors.Is(err, mesh.ErrNotConnected) && !errors.Is(err, mesh.ErrInvalid) { // not linked yet, or oneself
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(20+rand.IntN(200)) * time.Millisecond):
		}
	}
}
