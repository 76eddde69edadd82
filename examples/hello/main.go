// Hello is a whole program on the mesh: an agent that counts words for its peers, and asks a peer to count.
//
//	go run ./examples/hello bob
//	go run ./examples/hello alice bob to be or not to be
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/chatixia-ai/mesh"
)

type Text struct {
	Text string `json:"text" mesh:"required"`
}

type Words struct {
	Words int `json:"words"`
}

func count(_ context.Context, from mesh.Peer, req Text) (Words, error) {
	fmt.Printf("counting for %q\n", from.ID)
	return Words{len(strings.Fields(req.Text))}, nil
}

func main() {
	if len(os.Args) < 2 || len(os.Args) == 3 {
		fmt.Fprintln(os.Stderr, "usage: hello NAME [PEER TEXT...]")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, name string, ask []string) error {
	start, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	m, err := mesh.New(start, mesh.Config{
		APIKey:        name, // decides the peer id; in development mode it is the peer id
		WaitSignaling: true,
		Handlers:      map[string]mesh.Handler{"count_request": mesh.Typed(count)},
	})
	if err != nil {
		return fmt.Errorf("%w\nis there a signaling server? go run ./cmd/chatixia-signaling -dev", err)
	}
	defer m.Close() // sends what was accepted, and tells the peers
	if len(ask) == 0 {
		fmt.Println("joined as", m.ID())
		select {
		case <-ctx.Done():
			return nil
		case <-m.Done():
			return m.Err() // such as ErrReplaced: another agent with this name was started
		}
	}
	if err := m.WaitPeer(start, ask[0]); err != nil {
		return err
	}
	res, err := mesh.Call[Words](ctx, m, ask[0], "count_request", Text{strings.Join(ask[1:], " ")})
	if err != nil {
		return err
	}
	fmt.Println(res.Words, "words")
	return nil
}
