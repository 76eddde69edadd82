// Agent is a program on the mesh with a console: it prints what happens, and takes commands.
//
//	go run ./examples/agent NAME
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/chatixia-ai/mesh"
)

const commands = `peers, send PEER MESSAGE, broadcast MESSAGE, request PEER MESSAGE, offer SERVICE, ` +
	`open PEER SERVICE TEXT, quit; a MESSAGE is like {"type":"chat","payload":"hi"}`

func main() {
	if mesh.SidecarMain() {
		return // with -fork, the sidecar is a copy of this program
	}
	fork := flag.Bool("fork", false, "run the sidecar as a process of its own")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: agent [-fork] NAME\ncommands:", commands)
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, flag.Arg(0), *fork); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, name string, fork bool) error {
	hear := func(_ context.Context, msg *mesh.Message) (any, error) {
		say("%s: %s", msg.From, msg.Raw)
		return msg.Payload, nil // the payload of the response, if msg is a request
	}
	cfg := mesh.Config{
		APIKey:        name, // decides the peer id; in development mode it is the peer id
		WaitSignaling: true,
		Handlers:      map[string]mesh.Handler{"chat": hear, "echo_request": hear},
		OnError:       func(err error) { say("error: %v", err) },
		OnPeer: func(e mesh.PeerEvent) {
			if e.Connected {
				say("+ %s", e.Peer.ID)
			} else {
				say("- %s", e.Peer.ID)
			}
		},
	}
	if fork {
		cfg.Mode = mesh.SelfExec
	}
	start, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	m, err := mesh.New(start, cfg)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w\nstart a signaling server: go run ./cmd/chatixia-signaling -dev", err)
	} else if err != nil {
		return err
	}
	defer m.Close() // sends what was accepted, and tells the peers
	say("joined as %s", m.ID())

	ended := make(chan error, 1)
	go func() { ended <- console(ctx, m) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	case <-m.Done():
		return m.Err() // such as ErrReplaced: another agent with this name was started
	}
}

// console does what is typed in, until the end of the input.
func console(ctx context.Context, m *mesh.Mesh) error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() && lines.Text() != "quit" {
		if err := do(ctx, m, lines.Text()); err != nil {
			say("error: %v", err)
		}
	}
	return lines.Err()
}

func do(ctx context.Context, m *mesh.Mesh, command string) error {
	var peer string
	verb, text, _ := strings.Cut(command, " ")
	switch verb {
	case "send", "request":
		peer, text, _ = strings.Cut(text, " ")
	case "offer":
		return offer(m, text)
	case "open":
		peer, text, _ = strings.Cut(text, " ")
		service, text, _ := strings.Cut(text, " ")
		return open(ctx, m, peer, service, text)
	}
	var msg mesh.Message
	if err := json.Unmarshal([]byte(text), &msg); err != nil && text != "" {
		return fmt.Errorf("not a MESSAGE: %w; the commands are %s", err, commands)
	}
	switch verb {
	case "peers":
		text = "peers:"
		for _, p := range m.Peers() {
			text += " " + p.ID
		}
		say("%s", text)
	case "send":
		return m.Send(ctx, peer, msg)
	case "broadcast":
		return m.Broadcast(ctx, msg)
	case "request":
		reply, err := m.Request(ctx, peer, msg)
		if err != nil {
			return err
		}
		say("%s answers: %s", peer, reply.Raw)
	default:
		return errors.New("the commands are " + commands)
	}
	return nil
}

// offer sends back what peers write to their streams to a service.
func offer(m *mesh.Mesh, service string) error {
	l, err := m.Listen(service)
	if err != nil {
		return err
	}
	say("listens for %s", service)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // the mesh has ended
			}
			go echo(c)
		}
	}()
	return nil
}

func echo(c net.Conn) {
	defer c.Close()
	if _, err := io.Copy(c, c); err != nil {
		say("error: %v", err)
	}
}

// open writes a line to a stream and prints what comes back.
func open(ctx context.Context, m *mesh.Mesh, peer, service, text string) error {
	c, err := m.Dial(ctx, peer, service)
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	fmt.Fprintln(c, text) // if it fails, so does reading
	if err := c.(*mesh.Conn).CloseWrite(); err != nil {
		return err
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	say("%s/%s answers: %s", peer, service, strings.TrimSuffix(string(answer), "\n"))
	return nil
}

// say prints one line. It replaces characters by which a peer could forge lines or steer the terminal.
func say(format string, args ...any) {
	fmt.Println(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, fmt.Sprintf(format, args...)))
}
