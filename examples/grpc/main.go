// Grpc serves gRPC to the mesh, or calls a peer, with nothing but google.golang.org/grpc at both ends. The service is gRPC's own
// for health, so that no code is generated: Check is one call, Watch a stream.
//
//	go run . -name bob serve
//	go run . -name alice check bob
//	go run . -name alice watch bob
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/chatixia-ai/mesh"
)

func main() {
	if mesh.SidecarMain() {
		return
	}
	name := flag.String("name", "", "this agent's id")
	fork := flag.Bool("fork", false, "run the sidecar as a process of its own")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: grpc -name NAME serve | grpc -name NAME check PEER | grpc -name NAME watch PEER\n"+
			"for example: grpc -name bob serve and grpc -name alice check bob")
		flag.PrintDefaults()
	}
	flag.Parse()
	args := map[string]int{"serve": 1, "check": 2, "watch": 2}[flag.Arg(0)]
	if *name == "" || args == 0 || flag.NArg() != args {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *name, *fork, flag.Arg(0), flag.Arg(1)); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, name string, fork bool, verb, peer string) error {
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
	switch verb {
	case "check":
		return check(ctx, m, peer, os.Stdout)
	case "watch":
		return watch(ctx, m, peer, os.Stdout)
	}
	l, err := m.Listen("grpc")
	if err != nil {
		return err
	}
	fmt.Println("serving")
	return serve(ctx, l, health.NewServer())
}

// serve serves the health of this agent until ctx ends. Then those who watch it see that, and calls have a second to end.
func serve(ctx context.Context, l net.Listener, h *health.Server) error {
	server := grpc.NewServer()
	defer server.Stop()
	grpc_health_v1.RegisterHealthServer(server, h)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return err // such as that of the mesh, if that has ended
	case <-ctx.Done():
	}
	h.Shutdown()
	limit := time.AfterFunc(time.Second, server.Stop)
	defer limit.Stop()
	server.GracefulStop()
	return <-ended
}

// connect returns a connection to the service grpc of a peer, once the peer is there. If it breaks, gRPC dials again.
func connect(ctx context.Context, m *mesh.Mesh, peer string) (*grpc.ClientConn, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := m.WaitPeer(ctx, peer); errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("%w\nstart the peer: go run . -name %s serve", err, peer)
	} else if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, addr string) (net.Conn, error) { return m.DialContext(ctx, "mesh", addr) }
	return grpc.NewClient("passthrough:///"+peer+":grpc", // passthrough: the name is for the mesh, and not for DNS
		grpc.WithContextDialer(dial),
		// The link is encrypted already, from this agent to that.
		grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// check writes the health of a peer to w.
func check(ctx context.Context, m *mesh.Mesh, peer string, w io.Writer) error {
	conn, err := connect(ctx, m, peer)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	response, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, response.GetStatus())
	return err
}

// watch writes the health of a peer to w, and again whenever it changes, until ctx is canceled or the stream breaks off.
func watch(ctx context.Context, m *mesh.Mesh, peer string, w io.Writer) error {
	conn, err := connect(ctx, m, peer)
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := grpc_health_v1.NewHealthClient(conn).Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return err
	}
	for {
		response, err := stream.Recv()
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil
		} else if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(w, response.GetStatus()); err != nil {
			return err
		}
	}
}
