// Browser serves a web page that is a peer of the mesh through the browser's own
// WebRTC, together with a signaling server and two agents for the page to talk to.
//
//	go run ./examples/browser [-addr 127.0.0.1:8080]
//
// Open the address that it prints, in as many tabs as you like: each is a peer.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/signaling"
)

//go:embed index.html *.js
var page embed.FS

const statusInterval = 3 * time.Second

func main() {
	if mesh.SidecarMain() {
		return // this process was a sidecar, which has ended
	}
	addr := flag.String("addr", "127.0.0.1:8080", "where to serve the page: a loopback `address`, because anyone who reaches it may join")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, log.New(os.Stdout, "", 0), *addr); err != nil {
		fmt.Fprintln(os.Stderr, "browser:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, and logs to out.
func run(ctx context.Context, out *log.Logger, addr string) (err error) {
	listener, err := listen(addr)
	if err != nil {
		return fmt.Errorf("%w; choose another address with -addr, such as -addr 127.0.0.1:8090", err)
	}
	server, err := signaling.New(signaling.Config{Dev: true})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	web := &http.Server{Handler: handler(server), ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(listener) }()
	defer func() {
		err = errors.Join(err, web.Close(), server.Close())
		if end := <-served; !errors.Is(end, http.ErrServerClosed) {
			err = errors.Join(err, end)
		}
	}()

	url := "ws://" + listener.Addr().String() + "/ws"
	alice, err := join(ctx, out, url, "alice", mesh.InProcess)
	if err != nil {
		return err
	}
	defer alice.Close()
	bob, err := join(ctx, out, url, "bob", mesh.SelfExec)
	if err != nil {
		return err
	}
	defer bob.Close()
	out.Printf("open http://%s in a browser; Ctrl-C ends this", listener.Addr())
	return report(ctx, out, alice)
}

// listen accepts loopback addresses only: signaling would refuse clients of any other.
func listen(addr string) (net.Listener, error) {
	resolved, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, err
	}
	if !resolved.IP.IsLoopback() {
		return nil, fmt.Errorf("%q is not a loopback address, and the development mode of signaling serves this machine only", addr)
	}
	return net.ListenTCP("tcp", resolved)
}

// handler serves the page and signaling on one address.
func handler(server *signaling.Server) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServerFS(page))
	mux.Handle("/api/", server)
	mux.Handle("/ws", server)
	return mux
}

func join(ctx context.Context, out *log.Logger, url, name string, mode mesh.Mode) (*mesh.Mesh, error) {
	return mesh.New(ctx, mesh.Config{
		Mode: mode, SignalingURL: url, APIKey: name, WaitSignaling: true,
		Network: mesh.Network{MDNS: true}, // browsers hide their addresses behind .local names
		Card: &mesh.Card{
			Name: "Agent " + name, Version: "1.0",
			Skills: []mesh.Skill{{Name: "count-words", Type: "task_request"}, {Name: "echo"}},
		},
		Handlers: map[string]mesh.Handler{
			"task_request": countWords,
			"echo_request": func(_ context.Context, msg *mesh.Message) (any, error) { return msg.Payload, nil },
			"agent_status": func(context.Context, *mesh.Message) (any, error) { return nil, nil },
			"chat": func(_ context.Context, msg *mesh.Message) (any, error) {
				out.Printf("%s: %s says %.200q", name, msg.From, msg.Payload) // quoted: a peer may send anything
				return nil, nil
			},
		},
		OnPeer: func(e mesh.PeerEvent) {
			if !e.Connected {
				out.Printf("%s: %q is gone", name, e.Peer.ID)
				return
			}
			out.Printf("%s: linked to %q", name, e.Peer.ID)
			if name == "bob" {
				greet(ctx, out, e)
			}
		},
	})
}

// countWords handles a task_request.
func countWords(_ context.Context, msg *mesh.Message) (any, error) {
	var task struct{ Text string }
	if err := msg.Decode(&task); err != nil {
		return nil, err
	}
	return map[string]int{"words": len(strings.Fields(task.Text))}, nil
}

// greet sends a first message to a new peer.
func greet(ctx context.Context, out *log.Logger, e mesh.PeerEvent) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	hello := mesh.Message{Type: "chat", Payload: "hello " + e.Peer.ID + ", bob here"}
	if err := e.Mesh().Send(ctx, e.Peer.ID, hello); err != nil {
		out.Printf("bob: no greeting: %v", err)
	}
}

// report broadcasts alice's status every few seconds, until ctx ends.
func report(ctx context.Context, out *log.Logger, alice *mesh.Mesh) error {
	began := time.Now()
	tick := time.NewTicker(statusInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-alice.Done():
			return alice.Err()
		case <-ctx.Done():
			return nil
		}
		status := map[string]any{"status": "idle", "uptime_s": int(time.Since(began).Seconds()), "peers": len(alice.Peers())}
		if err := alice.Broadcast(ctx, mesh.Message{Type: "agent_status", Payload: status}); err != nil {
			out.Printf("alice: %v", err) // a peer may just have gone
		}
	}
}
