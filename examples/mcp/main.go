// Mcp offers the tools of an MCP server to the mesh, or calls those of a peer, with the MCP SDK for Go as it comes.
//
//	go run -C examples/mcp . -name bob serve
//	go run -C examples/mcp . -name alice list bob
//	go run -C examples/mcp . -name alice call bob now '{"zone":"Asia/Tokyo"}'
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
	_ "time/tzdata" // for systems that have none
	"unicode"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/chatixia-ai/mesh"
)

// service is what bob listens for. mesh mcp bob:clock reaches it, too.
const service = "mcp/clock"

func main() {
	if mesh.SidecarMain() {
		return
	}
	name := flag.String("name", "", "this agent's id")
	fork := flag.Bool("fork", false, "run the sidecar as a process of its own")
	patience := flag.Duration("patience", 0, "cancel a call that takes longer (default: only Ctrl-C does)")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: mcp -name NAME serve | mcp -name NAME list PEER | mcp -name NAME call PEER TOOL [ARGUMENTS]\n"+
			`for example: mcp -name bob serve and mcp -name alice call bob countdown '{"from":3}'`)
		flag.PrintDefaults()
	}
	flag.Parse()
	wanted := map[string]int{"serve": 1, "list": 2, "call": 3}[flag.Arg(0)]
	if flag.NArg() == 4 && flag.Arg(0) == "call" {
		wanted = 4
	}
	if *name == "" || wanted == 0 || flag.NArg() != wanted {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *name, *fork, *patience, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "error:", printable(err.Error()))
		os.Exit(1)
	}
}

func run(ctx context.Context, name string, fork bool, patience time.Duration, args []string) error {
	cfg := mesh.Config{APIKey: name, WaitSignaling: true}
	if fork {
		cfg.Mode = mesh.SelfExec
	}
	m, err := mesh.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer m.Close()
	if args[0] == "serve" {
		return serve(ctx, m)
	}
	session, err := connect(ctx, m, args[1], printProgress)
	if err != nil {
		return err
	}
	defer session.Close()
	if args[0] == "list" {
		return list(ctx, session)
	}
	arguments := "{}"
	if len(args) == 4 {
		arguments = args[3]
	}
	if patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	return call(ctx, session, args[2], arguments)
}

// serve has a session of MCP with each peer that opens a stream, until ctx ends.
func serve(ctx context.Context, m *mesh.Mesh) error {
	l, err := m.Listen(service)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	say("serving")
	var sessions sync.WaitGroup
	defer sessions.Wait()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		sessions.Go(func() { attend(ctx, conn.(*mesh.Conn)) })
	}
}

// attend is one session. It ends when the peer leaves or closes the stream, and when ctx ends, and so do its calls.
func attend(ctx context.Context, conn *mesh.Conn) {
	stop := context.AfterFunc(ctx, conn.Reset)
	defer stop()
	peer := conn.Peer().ID
	err := clock(peer).Run(context.WithoutCancel(ctx), &mcp.IOTransport{Reader: conn, Writer: conn})
	if err != nil && !errors.Is(err, net.ErrClosed) && ctx.Err() == nil { // the SDK closes the stream once for each direction
		say("the session of %s broke off: %v", peer, err)
	}
}

// clock returns the server for a peer. The tools know who that is: its link says so, not the client.
func clock(peer string) *mcp.Server {
	server := mcp.NewServer(&mcp.Implementation{Name: "clock", Version: "v1.0.0"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "now", Description: "tells the time in a zone"}, now)
	mcp.AddTool(server, &mcp.Tool{Name: "countdown", Description: "counts down, and reports progress"},
		func(ctx context.Context, request *mcp.CallToolRequest, in countdownInput) (*mcp.CallToolResult, any, error) {
			if err := countdown(ctx, request, in); err != nil {
				say("a countdown of %s has ended early: %v", peer, err)
				return nil, nil, err
			}
			return text("lift-off, " + peer), nil, nil
		})
	return server
}

type nowInput struct {
	Zone string `json:"zone,omitempty" jsonschema:"such as Asia/Tokyo; by default UTC"`
}

func now(_ context.Context, _ *mcp.CallToolRequest, in nowInput) (*mcp.CallToolResult, any, error) {
	zone, err := time.LoadLocation(in.Zone)
	if err != nil {
		return nil, nil, err
	}
	return text(time.Now().In(zone).Format(time.RFC3339)), nil, nil
}

type countdownInput struct {
	From int `json:"from" jsonschema:"how many steps"`
	Step int `json:"step,omitempty" jsonschema:"milliseconds from one to the next; by default 1000, at most 60000"`
}

// countdown counts, and tells the client of each step if it has asked for that.
func countdown(ctx context.Context, request *mcp.CallToolRequest, in countdownInput) error {
	if in.Step <= 0 {
		in.Step = 1000
	}
	token := request.Params.GetProgressToken()
	tick := time.NewTicker(time.Duration(min(in.Step, 60_000)) * time.Millisecond)
	defer tick.Stop()
	for done := range in.From {
		if token != nil {
			progress := &mcp.ProgressNotificationParams{ProgressToken: token, Progress: float64(done), Total: float64(in.From)}
			if err := request.Session.NotifyProgress(ctx, progress); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done(): // the call was cancelled, or the stream is gone
			return context.Cause(ctx)
		}
	}
	return nil
}

func text(s string) *mcp.CallToolResult {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: s}}}
}

// connect begins a session with the server of a peer. It waits for the peer, if it is not there yet.
func connect(ctx context.Context, m *mesh.Mesh, peer string, progress func(*mcp.ProgressNotificationParams)) (*mcp.ClientSession, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second) // for the start only
	defer cancel()
	if err := m.WaitPeer(ctx, peer); err != nil {
		return nil, err
	}
	conn, err := m.Dial(ctx, peer, service)
	if err != nil {
		return nil, err
	}
	client := mcp.NewClient(&mcp.Implementation{Name: "example", Version: "v1.0.0"}, &mcp.ClientOptions{
		ProgressNotificationHandler: func(_ context.Context, r *mcp.ProgressNotificationClientRequest) { progress(r.Params) },
	})
	session, err := client.Connect(ctx, &mcp.IOTransport{Reader: conn, Writer: conn}, nil)
	if err != nil {
		_ = conn.Close()
	}
	return session, err
}

func printProgress(p *mcp.ProgressNotificationParams) {
	say("%v: %v of %v", p.ProgressToken, p.Progress, p.Total)
}

// list prints the tools of a server.
func list(ctx context.Context, session *mcp.ClientSession) error {
	for tool, err := range session.Tools(ctx, nil) {
		if err != nil {
			return err
		}
		say("%s: %s", tool.Name, tool.Description)
	}
	return nil
}

// call calls a tool and prints what it says. If ctx ends before that, the SDK tells the server, whose tool ends. It also ends
// with the session, which is what comes first if the program ends then.
func call(ctx context.Context, session *mcp.ClientSession, tool, arguments string) error {
	params := &mcp.CallToolParams{Name: tool, Arguments: json.RawMessage(arguments)}
	params.SetProgressToken(tool) // asks for progress; any value that no other call of the session has
	result, err := session.CallTool(ctx, params)
	if err != nil {
		return err
	}
	var said strings.Builder
	for _, c := range result.Content {
		if c, ok := c.(*mcp.TextContent); ok {
			said.WriteString(c.Text)
		}
	}
	if result.IsError {
		return errors.New(said.String())
	}
	say("%s", said.String())
	return nil
}

// say prints one line.
func say(format string, args ...any) { fmt.Println(printable(fmt.Sprintf(format, args...))) }

// printable replaces characters by which a peer could forge lines or steer the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
