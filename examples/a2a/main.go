// A2a serves an agent to the mesh by the Agent2Agent protocol, or talks to that of a peer, with nothing but
// github.com/a2aproject/a2a-go and net/http at both ends.
//
//	go run . -name bob serve
//	go run . -name alice card bob
//	go run . -name alice send bob TEXT
//	go run . -name alice stream bob TEXT
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/a2aproject/a2a-go/a2a"
	"github.com/a2aproject/a2a-go/a2aclient"
	"github.com/a2aproject/a2a-go/a2aclient/agentcard"
	"github.com/a2aproject/a2a-go/a2asrv"
	"github.com/a2aproject/a2a-go/a2asrv/eventqueue"

	"github.com/chatixia-ai/mesh"
)

func main() {
	if mesh.SidecarMain() {
		return
	}
	name := flag.String("name", "", "this agent's id")
	fork := flag.Bool("fork", false, "run the sidecar as a process of its own")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: a2a -name NAME serve | card PEER | send PEER TEXT | stream PEER TEXT\n"+
			`for example: a2a -name bob serve and a2a -name alice send bob "hello, bob"`)
		flag.PrintDefaults()
	}
	flag.Parse()
	args := map[string]int{"serve": 1, "card": 2, "send": 3, "stream": 3}[flag.Arg(0)]
	if *name == "" || args == 0 || flag.NArg() != args {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *name, *fork, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, name string, fork bool, args []string) error {
	cfg := mesh.Config{APIKey: name, WaitSignaling: true}
	if fork {
		cfg.Mode = mesh.SelfExec
	}
	start, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	m, err := mesh.New(start, cfg)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w\nstart a signaling server, in the root of the repository: go run ./cmd/chatixia-signaling -dev", err)
	} else if err != nil {
		return err
	}
	defer m.Close()
	switch args[0] {
	case "card":
		return describe(ctx, m, args[1], os.Stdout)
	case "send":
		return send(ctx, m, args[1], args[2], os.Stdout)
	case "stream":
		return stream(ctx, m, args[1], args[2], os.Stdout)
	}
	l, err := m.Listen("http")
	if err != nil {
		return err
	}
	fmt.Println("serving")
	return serve(ctx, l, handler(m.ID(), shouter{}))
}

// A shouter is an agent that repeats what it is told in capitals, each word as soon as it has it.
type shouter struct{}

// Execute implements a2asrv.AgentExecutor.
func (shouter) Execute(ctx context.Context, request *a2asrv.RequestContext, events eventqueue.Queue) error {
	if err := events.Write(ctx, a2a.NewStatusUpdateEvent(request, a2a.TaskStateWorking, nil)); err != nil {
		return err
	}
	for word := range strings.FieldsSeq(text(request.Message.Parts)) {
		if err := events.Write(ctx, a2a.NewArtifactEvent(request, a2a.TextPart{Text: strings.ToUpper(word)})); err != nil {
			return err
		}
	}
	return end(ctx, request, events, a2a.TaskStateCompleted)
}

// Cancel implements a2asrv.AgentExecutor.
func (shouter) Cancel(ctx context.Context, request *a2asrv.RequestContext, events eventqueue.Queue) error {
	return end(ctx, request, events, a2a.TaskStateCanceled)
}

// end ends a task.
func end(ctx context.Context, request *a2asrv.RequestContext, events eventqueue.Queue, state a2a.TaskState) error {
	last := a2a.NewStatusUpdateEvent(request, state, nil)
	last.Final = true
	return events.Write(ctx, last)
}

// handler serves an agent, and its card, which says where the agent is: at a peer, not at a host.
func handler(peer string, agent a2asrv.AgentExecutor) http.Handler {
	skill := a2a.AgentSkill{ID: "shout", Name: "shout", Description: "repeats a text in capitals", Tags: []string{"text"}}
	mux := http.NewServeMux()
	mux.Handle(a2asrv.WellKnownAgentCardPath, a2asrv.NewStaticAgentCardHandler(&a2a.AgentCard{
		Name: peer, Description: "repeats in capitals what it is told", Version: "1", ProtocolVersion: "0.3.0",
		URL: "http://" + peer + "/a2a", PreferredTransport: a2a.TransportProtocolJSONRPC,
		Capabilities:      a2a.AgentCapabilities{Streaming: true},
		DefaultInputModes: []string{"text/plain"}, DefaultOutputModes: []string{"text/plain"}, Skills: []a2a.AgentSkill{skill},
	}))
	mux.Handle("/a2a", a2asrv.NewJSONRPCHandler(a2asrv.NewHandler(agent)))
	return mux
}

// serve serves HTTP until ctx ends.
func serve(ctx context.Context, l net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	defer server.Close()
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// connect returns a client of the agent of a peer, once the peer is there, and the agent's card.
func connect(ctx context.Context, m *mesh.Mesh, peer string) (*a2aclient.Client, *a2a.AgentCard, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := m.WaitPeer(ctx, peer); errors.Is(err, context.DeadlineExceeded) {
		return nil, nil, fmt.Errorf("%w\nstart the peer: go run . -name %s serve", err, peer)
	} else if err != nil {
		return nil, nil, err
	}
	web := &http.Client{Transport: &http.Transport{DialContext: m.DialContext}}
	card, err := agentcard.NewResolver(web).Resolve(ctx, "http://"+peer)
	if err != nil {
		return nil, nil, err
	}
	// Whatever the card says, it leads to a peer: the default transports would leave the mesh.
	client, err := a2aclient.NewFromCard(ctx, card, a2aclient.WithDefaultsDisabled(), a2aclient.WithJSONRPCTransport(web))
	return client, card, err
}

// describe writes what the card of a peer's agent says to w.
func describe(ctx context.Context, m *mesh.Mesh, peer string, w io.Writer) error {
	_, card, err := connect(ctx, m, peer)
	if err != nil {
		return err
	}
	return say(w, card.Name+": "+card.Description+"; at "+card.URL)
}

// send sends a text to a peer's agent, and writes the whole answer to w.
func send(ctx context.Context, m *mesh.Mesh, peer, what string, w io.Writer) error {
	client, _, err := connect(ctx, m, peer)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	result, err := client.SendMessage(ctx, message(what))
	if err != nil {
		return err
	}
	switch r := result.(type) {
	case *a2a.Message:
		return say(w, text(r.Parts))
	case *a2a.Task:
		var words []string
		for _, artifact := range r.Artifacts {
			words = append(words, text(artifact.Parts))
		}
		if err := say(w, strings.Join(words, " ")); err != nil || r.Status.State == a2a.TaskStateCompleted {
			return err
		}
		return fmt.Errorf("the task of %s is %s", peer, r.Status.State)
	}
	return fmt.Errorf("%s has answered with a %T", peer, result)
}

// stream sends a text to a peer's agent, and writes to w what the agent does about it, as it does it.
func stream(ctx context.Context, m *mesh.Mesh, peer, what string, w io.Writer) error {
	client, _, err := connect(ctx, m, peer)
	if err != nil {
		return err
	}
	for event, err := range client.SendStreamingMessage(ctx, message(what)) {
		if err != nil {
			return err
		}
		var line string
		switch e := event.(type) {
		case *a2a.Message:
			line = text(e.Parts)
		case *a2a.TaskStatusUpdateEvent:
			line = string(e.Status.State)
		case *a2a.TaskArtifactUpdateEvent:
			line = text(e.Artifact.Parts)
		}
		if err := say(w, line); err != nil {
			return err
		}
	}
	return nil
}

// message returns a message of the user.
func message(what string) *a2a.MessageSendParams {
	return &a2a.MessageSendParams{Message: a2a.NewMessage(a2a.MessageRoleUser, a2a.TextPart{Text: what})}
}

// text returns the text in parts of a message or an artifact.
func text(parts a2a.ContentParts) string {
	var b strings.Builder
	for _, part := range parts {
		if t, ok := part.(a2a.TextPart); ok {
			b.WriteString(t.Text)
		}
	}
	return b.String()
}

// say writes one line. It replaces characters by which a peer could forge lines or steer the terminal.
func say(w io.Writer, line string) error {
	_, err := fmt.Fprintln(w, strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, line))
	return err
}
