// Quickstart starts a signaling server and three agents on this machine, which
// find each other, share work, survive a crash and leave.
//
//	go run ./examples/quickstart [file]
//
// Alice keeps her sidecar in this process; bob and carol fork this program as
// theirs. Nothing is left behind when it ends.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/signaling"
)

func main() {
	if mesh.SidecarMain() {
		return // this process was a forked sidecar, and its work is done
	}
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: quickstart [file]\nThree agents meet, and two of them count the words of the file, by default LICENSE.")
	}
	flag.Parse()
	file := "LICENSE"
	if flag.NArg() > 0 {
		file = flag.Arg(0)
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
		return fmt.Errorf("no file to count words in: %w; run it in the root of the repository, or name a file", err)
	}
	url, stop, err := startSignaling()
	if err != nil {
		return err
	}
	defer stop()

	s := &show{
		out: out, url: url, file: file,
		heard: make(chan string, 2), stopped: make(chan string, 1), lost: make(chan string, 1),
	}
	defer s.close()
	s.say("", "signaling server at %s", url)
	for _, step := range []func(context.Context) error{s.join, s.meet, s.delegate, s.broadcast, s.fail, s.crash} {
		fmt.Fprintln(out)
		if err := step(ctx); err != nil {
			return err
		}
	}
	fmt.Fprintln(out)
	return s.close()
}

// startSignaling serves on loopback. In development mode the API key of a peer is its id.
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
		web.Close()
		server.Close()
		<-served
	}, nil
}

// A show has three agents: alice, bob and carol.
type show struct {
	out       io.Writer
	url, file string
	agents    []*mesh.Mesh
	heard     chan string // the agent that received a broadcast
	stopped   chan string // the agent that stopped working on a request
	lost      chan string // the agent that lost its sidecar
}

func (s *show) say(who, format string, args ...any) {
	fmt.Fprintln(s.out, strings.TrimSpace(fmt.Sprintf("%-6s", who)+" "+fmt.Sprintf(format, args...)))
}

func (s *show) join(ctx context.Context) error {
	forked := mesh.SelfExec
	if runtime.GOOS == "windows" {
		forked = mesh.InProcess
	}
	for _, a := range []struct {
		name string
		mode mesh.Mode
	}{{"alice", mesh.InProcess}, {"bob", forked}, {"carol", forked}} {
		m, err := mesh.New(ctx, s.config(a.name, a.mode))
		if err != nil {
			return err
		}
		s.agents = append(s.agents, m)
		where := "runs in this process"
		if pid := m.SidecarPID(); pid != 0 {
			where = fmt.Sprintf("is a fork of this program, pid %d", pid)
		}
		s.say(m.ID(), "joined; the sidecar %s", where)
	}
	return nil
}

func (s *show) config(name string, mode mesh.Mode) mesh.Config {
	return mesh.Config{
		Mode: mode, SignalingURL: s.url, APIKey: name, WaitSignaling: true,
		Handlers: map[string]mesh.Handler{
			"task_request": countWords,
			"nap_request": func(ctx context.Context, _ *mesh.Message) (any, error) {
				<-ctx.Done()
				s.stopped <- name
				return nil, ctx.Err()
			},
			"agent_status": func(context.Context, *mesh.Message) (any, error) {
				s.heard <- name
				return nil, nil
			},
		},
		OnPeer: func(e mesh.PeerEvent) {
			if errors.Is(e.Err, mesh.ErrSidecarLost) && e.Peer.ID == "alice" {
				s.lost <- name
			}
		},
	}
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
	for _, a := range s.agents {
		var others []string
		for _, b := range s.agents {
			if a == b {
				continue
			}
			if err := a.WaitPeer(ctx, b.ID()); err != nil {
				return err
			}
			others = append(others, b.ID())
		}
		s.say(a.ID(), "is linked to %s", strings.Join(others, " and "))
	}
	return nil
}

func (s *show) delegate(ctx context.Context) error {
	alice := s.agents[0]
	for _, peer := range []string{"bob", "carol"} {
		began := time.Now()
		reply, err := alice.Request(ctx, peer, mesh.Message{Type: "task_request", Payload: map[string]string{"path": s.file}})
		if err != nil {
			return err
		}
		var result struct{ Words, Lines int }
		if err := reply.Decode(&result); err != nil {
			return err
		}
		s.say("alice", "asked %s to count: %d words in %d lines of %s, after %v",
			peer, result.Words, result.Lines, s.file, time.Since(began).Round(10*time.Microsecond))
	}
	return nil
}

func (s *show) broadcast(ctx context.Context) error {
	carol := s.agents[2]
	if err := carol.Broadcast(ctx, mesh.Message{Type: "agent_status", Payload: map[string]string{"status": "idle"}}); err != nil {
		return err
	}
	s.say("carol", "told everyone that she is idle")
	var heard []string
	for range 2 {
		name, err := next(ctx, s.heard)
		if err != nil {
			return err
		}
		heard = append(heard, name)
	}
	slices.Sort(heard)
	s.say("", "received by %s", strings.Join(heard, " and "))
	return nil
}

// fail asks for what cannot be had.
func (s *show) fail(ctx context.Context) error {
	alice := s.agents[0]
	_, err := alice.Request(ctx, "dave", mesh.Message{Type: "task_request"})
	if !errors.Is(err, mesh.ErrNotConnected) {
		return fmt.Errorf("a request to a peer that is not there: got %v", err)
	}
	s.say("alice", "asked dave, who is not there: %v", err)

	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	_, err = alice.Request(short, "bob", mesh.Message{Type: "nap_request"})
	if !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("a request that takes too long: got %v", err)
	}
	s.say("alice", "gave up on bob: %v", err)
	name, err := next(ctx, s.stopped)
	if err != nil {
		return err
	}
	s.say(name, "stopped working on it")
	return nil
}

// crash kills bob's sidecar, which costs bob nothing but the moment until he has another one.
func (s *show) crash(ctx context.Context) error {
	bob := s.agents[1]
	pid := bob.SidecarPID()
	if pid == 0 {
		return nil // it runs in this process
	}
	sidecar, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := sidecar.Kill(); err != nil {
		return err
	}
	if _, err := next(ctx, s.lost); err != nil {
		return err
	}
	s.say("bob", "lost the sidecar: pid %d was killed", pid)
	if err := bob.WaitPeer(ctx, "alice"); err != nil {
		return err
	}
	s.say("bob", "is linked to alice again after %v; the new sidecar is pid %d",
		time.Since(began).Round(time.Millisecond), bob.SidecarPID())
	for _, other := range []*mesh.Mesh{s.agents[0], s.agents[2]} {
		if err := seesAnew(ctx, other, "bob", began); err != nil {
			return err
		}
	}
	return nil
}

// seesAnew blocks until an agent has a link to a peer that has come up since a time. What it had sent over the one before, and the peer has
// not acknowledged, would be told when it closes.
func seesAnew(ctx context.Context, m *mesh.Mesh, peer string, since time.Time) error {
	for {
		for _, p := range m.Peers() {
			if p.ID == peer && p.Since.After(since) {
				return nil
			}
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// next returns what comes next from a channel.
func next(ctx context.Context, names <-chan string) (string, error) {
	select {
	case name := <-names:
		return name, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// close ends the agents. When it returns, nothing of them is left.
func (s *show) close() error {
	var errs []error
	for _, a := range s.agents {
		name := a.ID()
		errs = append(errs, a.Close())
		s.say(name, "left")
	}
	s.agents = nil
	return errors.Join(errs...)
}
