package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/spf13/cobra"

	"github.com/chatixia-ai/mesh"
)

const listenHelp = `Print the messages that peers send to this command, until interrupted: a line for each with
the sender, the type and the payload. With types, only messages of those.

A request is printed as well, and the peer gets an error as the response: nothing is done
with it here.`

// shownMessage is what is printed about a message.
type shownMessage struct {
	From    string          `json:"from"`
	Message json.RawMessage `json:"message"`
}

// shownListener is what is printed first.
type shownListener struct {
	Peer string `json:"peer"` // this one
}

func newListen() *cobra.Command {
	var f joinFlags
	c := &cobra.Command{
		Use: "listen [TYPE...]", Short: "Print the messages of peers", Long: listenHelp,
		Example: "  mesh listen --id bob\n  mesh listen note report --json | jq .message.payload",
		Args:    cobra.ArbitraryArgs, ValidArgsFunction: cobra.NoFileCompletions,
	}
	f.add(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		for _, typ := range args {
			if err := checkType(typ); err != nil {
				return err
			}
		}
		p := &printer{c: c, failed: make(chan error, 1), ready: make(chan struct{})}
		return f.with(c, p.config(args), p.run)
	}
	return c
}

// A printer prints messages.
type printer struct {
	c      *cobra.Command
	failed chan error    // buffered 1: why nothing can be printed any more
	ready  chan struct{} // closed when the first line was printed

	mu sync.Mutex
}

func (p *printer) config(types []string) mesh.Config {
	cfg := mesh.Config{Handlers: map[string]mesh.Handler{}}
	if len(types) == 0 {
		types = []string{""} // every one
	}
	for _, typ := range types {
		cfg.Handlers[typ] = p.handle
	}
	return cfg
}

func (p *printer) run(ctx context.Context, m *mesh.Mesh) error {
	if err := printEvent(p.c, shownListener{m.ID()}, "listening as "+quote(m.ID())); err != nil {
		return err
	}
	close(p.ready)
	select {
	case err := <-p.failed:
		return err
	case <-ctx.Done():
		return ended(ctx)
	}
}

// errOnlyPrints is the response to requests.
var errOnlyPrints = errors.New("mesh listen prints requests and does not carry them out")

func (p *printer) handle(ctx context.Context, msg *mesh.Message) (any, error) {
	select {
	case <-p.ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	payload, _ := msg.Payload.(json.RawMessage)
	text := fmt.Sprintf("%s %s %s", quote(msg.From), quote(msg.Type), oneLine(payload))
	if err := printEvent(p.c, shownMessage{msg.From, msg.Raw}, text); err != nil {
		select {
		case p.failed <- err:
		default:
		}
	}
	if msg.Type == "ping" {
		return nil, nil // a pong, as from every agent
	}
	return nil, errOnlyPrints
}
