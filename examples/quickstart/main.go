// Quickstart starts a signaling server and three agents on this machine, and
// lets them find each other, share work and take leave.
//
//	go run ./examples/quickstart [file]
//
// One agent keeps its sidecar in this process; the other two fork this very
// program as theirs. Nothing is left behind when it ends.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/signaling"
)

func main() {
	if mesh.SidecarMain() {
		return // this process was a forked sidecar, and its work is done
	}
	file := "README.md"
	if len(os.Args) > 1 {
		file = os.Args[1]
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, os.Stdout, file); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, file string) error {
	if _, err := os.Stat(file); err != nil {
		return fmt.Errorf("the file whose words bob is to count: %w (give another one as argument)", err)
	}
	url, stop, err := startSignaling()
	if err != nil {
		return err
	}
	defer stop()
	fmt.Fprintf(out, "signaling  %s\n\n", url)

	s := &show{out: out, url: url}
	defer s.close()
	for _, a := range []struct {
		name string
		mode mesh.Mode
	}{{"alice", mesh.InProcess}, {"bob", mesh.SelfExec}, {"carol", mesh.SelfExec}} {
		if err := s.join(ctx, a.name, a.mode); err != nil {
			return err
		}
	}
	for _, step := range []func(context.Context) error{
		s.meet,
		func(ctx context.Context) error { return s.delegate(ctx, file) },
		s.broadcast,
		s.connect,
		s.unknownPeer,
		s.giveUp,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return s.close()
}

// startSignaling serves on loopback. Development mode takes any API key as the
// name of the peer that presents it.
func startSignaling() (url string, stop func(), err error) {
	server, err := signaling.New(signaling.Config{Dev: true})
	if err != nil {
		return "", nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	web := &http.Server{Handler: server, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(listener) }()
	return "ws://" + listener.Addr().String() + "/ws", func() {
		server.Close()
		web.Close()
		<-served
	}, nil
}

// show is the cast: three agents, and where what they do is printed.
type show struct {
	out    io.Writer
	url    string
	agents []*agent
	heard  chan string // "who heard what" of a broadcast
	ended  chan string // handlers whose asker gave up
}

type agent struct {
	name string
	mode mesh.Mode
	*mesh.Mesh
}

func (s *show) join(ctx context.Context, name string, mode mesh.Mode) error {
	if s.heard == nil {
		s.heard, s.ended = make(chan string, 8), make(chan string, 8)
	}
	m, err := mesh.New(ctx, mesh.Config{
		Mode: mode, SignalingURL: s.url, APIKey: name, WaitSignaling: true,
		Handlers: map[string]mesh.Handler{
			"task_request": countWords,
			"nap_request": func(ctx context.Context, _ *mesh.Message) (any, error) {
				<-ctx.Done()
				s.ended <- name
				return nil, ctx.Err()
			},
			"agent_status": func(_ context.Context, msg *mesh.Message) (any, error) {
				s.heard <- fmt.Sprintf("%-10s heard %s's status: %s", name, msg.From, msg.Raw)
				return nil, nil
			},
		},
	})
	if err != nil {
		return err
	}
	s.agents = append(s.agents, &agent{name, mode, m})
	where := fmt.Sprintf("in this process, pid %d", os.Getpid())
	if pid := m.SidecarPID(); pid != 0 {
		where = fmt.Sprintf("a fork of this program, pid %d", pid)
	}
	fmt.Fprintf(s.out, "%-10s joined as %q; sidecar %s (%v)\n", name, m.ID(), where, mode)
	return nil
}

// countWords is a real piece of work: it reads a file and counts.
func countWords(_ context.Context, msg *mesh.Message) (any, error) {
	var task struct{ Path string }
	if err := msg.Decode(&task); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(task.Path)
	if err != nil {
		return nil, err
	}
	return map[string]int{"words": len(bytes.Fields(text)), "lines": bytes.Count(text, []byte("\n"))}, nil
}

func (s *show) meet(ctx context.Context) error {
	fmt.Fprintln(s.out)
	for _, a := range s.agents {
		for _, b := range s.agents {
			if a == b {
				continue
			}
			if err := a.WaitPeer(ctx, b.name); err != nil {
				return err
			}
		}
		var linked []string
		for _, p := range a.Peers() {
			linked = append(linked, p.ID)
		}
		fmt.Fprintf(s.out, "%-10s is linked to %s\n", a.name, strings.Join(linked, " and "))
	}
	return nil
}

func (s *show) delegate(ctx context.Context, file string) error {
	alice := s.agents[0]
	fmt.Fprintln(s.out)
	for _, to := range s.agents[1:] {
		began := time.Now()
		reply, err := alice.Request(ctx, to.name, mesh.Message{Type: "task_request", Payload: map[string]string{"path": file}})
		if err != nil {
			return err
		}
		var result struct{ Words, Lines int }
		if err := reply.Decode(&result); err != nil {
			return err
		}
		fmt.Fprintf(s.out, "alice      asked %s to count: %s has %d words in %d lines; %s after %s\n",
			to.name, file, result.Words, result.Lines, reply.Type, time.Since(began).Round(10*time.Microsecond))
	}
	return nil
}

func (s *show) broadcast(ctx context.Context) error {
	fmt.Fprintln(s.out)
	carol := s.agents[2]
	if err := carol.Broadcast(ctx, mesh.Message{Type: "agent_status", Payload: map[string]string{"status": "idle"}}); err != nil {
		return err
	}
	for range carol.Peers() {
		select {
		case line := <-s.heard:
			fmt.Fprintf(s.out, "%s\n", line)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (s *show) connect(ctx context.Context) error {
	fmt.Fprintln(s.out)
	if err := s.agents[1].Connect(ctx, "carol"); err != nil {
		return err
	}
	fmt.Fprintln(s.out, "bob        made sure of the link to carol")
	return nil
}

func (s *show) unknownPeer(ctx context.Context) error {
	_, err := s.agents[0].Request(ctx, "dave", mesh.Message{Type: "task_request"})
	if !errors.Is(err, mesh.ErrNotConnected) {
		return fmt.Errorf("asking a peer that is not there: got %v", err)
	}
	fmt.Fprintf(s.out, "alice      asked dave, who is not there: %v\n", err)
	return nil
}

func (s *show) giveUp(ctx context.Context) error {
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	_, err := s.agents[0].Request(short, "bob", mesh.Message{Type: "nap_request"})
	if !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("a request given up: got %v", err)
	}
	fmt.Fprintf(s.out, "alice      gave up on a slow one: %v\n", err)
	select {
	case name := <-s.ended:
		fmt.Fprintf(s.out, "%-10s stopped working on it\n", name)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close says goodbye; nothing of the agents is left when it returns.
func (s *show) close() error {
	if len(s.agents) == 0 {
		return nil
	}
	fmt.Fprintln(s.out)
	var errs []error
	for _, a := range s.agents {
		errs = append(errs, a.Close())
		fmt.Fprintf(s.out, "%-10s left\n", a.name)
	}
	s.agents = nil
	return errors.Join(errs...)
}
