package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/signaling"
)

func TestMain(m *testing.M) {
	if mesh.SidecarMain() {
		return
	}
	goleak.VerifyTestMain(m)
}

// A pair is bob, who serves his health, and alice.
type pair struct {
	bob, alice *mesh.Mesh
	health     *health.Server
	stop       context.CancelFunc // of bob's server
	served     chan error
}

func start(ctx context.Context, t *testing.T, mode mesh.Mode) *pair {
	t.Helper()
	server, err := signaling.New(signaling.Config{Dev: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	web := httptest.NewServer(server)
	t.Cleanup(web.Close)
	url := "ws" + strings.TrimPrefix(web.URL, "http") + "/ws"
	p := &pair{
		bob: join(ctx, t, mode, url, "bob"), alice: join(ctx, t, mode, url, "alice"),
		health: health.NewServer(), served: make(chan error, 1),
	}
	l, err := p.bob.Listen("grpc")
	if err != nil {
		t.Fatal(err)
	}
	ctx, p.stop = context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { p.served <- serve(ctx, l, p.health) })
	t.Cleanup(work.Wait)
	t.Cleanup(p.stop)
	return p
}

// join starts an agent.
func join(ctx context.Context, t *testing.T, mode mesh.Mode, url, name string) *mesh.Mesh {
	t.Helper()
	m, err := mesh.New(ctx, mesh.Config{Mode: mode, SignalingURL: url, APIKey: name, WaitSignaling: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// A watcher is alice watching bob.
type watcher struct {
	t     *testing.T
	lines *bufio.Scanner
	err   chan error
}

func (p *pair) watch(ctx context.Context, t *testing.T) *watcher {
	t.Helper()
	r, w := io.Pipe()
	v := &watcher{t: t, lines: bufio.NewScanner(r), err: make(chan error, 1)}
	var work sync.WaitGroup
	work.Go(func() {
		v.err <- watch(ctx, p.alice, "bob", w)
		_ = w.Close()
	})
	t.Cleanup(work.Wait)
	t.Cleanup(func() { _ = r.Close() })
	return v
}

// sees expects the next status.
func (v *watcher) sees(want string) {
	v.t.Helper()
	if !v.lines.Scan() {
		v.t.Fatalf("the stream has ended before %s: %v", want, <-v.err)
	}
	if got := v.lines.Text(); got != want {
		v.t.Errorf("status %s, want %s", got, want)
	}
}

// ends expects that the stream breaks off with this code.
func (v *watcher) ends(want codes.Code) {
	v.t.Helper()
	for v.lines.Scan() {
		v.t.Errorf("status %s after the last one", v.lines.Text())
	}
	if err := <-v.err; status.Code(err) != want {
		v.t.Errorf("the stream has ended with %v, want %v", err, want)
	}
}

func TestInProcess(t *testing.T) { test(t, mesh.InProcess) }

func TestForked(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("sidecars of their own need Unix sockets")
	}
	test(t, mesh.SelfExec)
}

func test(t *testing.T, mode mesh.Mode) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	t.Run("check", func(t *testing.T) { testCheck(ctx, t, mode) })
	t.Run("watch", func(t *testing.T) { testWatch(ctx, t, mode) })
	t.Run("closed", func(t *testing.T) { testClosed(ctx, t, mode) })
	t.Run("killed", func(t *testing.T) { testKilled(ctx, t, mode) })
}

func testCheck(ctx context.Context, t *testing.T, mode mesh.Mode) {
	p := start(ctx, t, mode)
	var got strings.Builder
	if err := check(ctx, p.alice, "bob", &got); err != nil || got.String() != "SERVING\n" {
		t.Errorf("%q, %v", got.String(), err)
	}
	if err := p.bob.WaitPeer(ctx, "alice"); err != nil {
		t.Fatal(err)
	}
	// The other way round there is no service.
	if err := check(ctx, p.bob, "alice", &got); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), mesh.ErrNoService.Error()) {
		t.Errorf("a peer that serves nothing: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := check(short, p.alice, "carol", &got); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "start the peer: ") {
		t.Errorf("a peer that is not there: %v", err)
	}
}

func testWatch(ctx context.Context, t *testing.T, mode mesh.Mode) {
	p := start(ctx, t, mode)
	first := p.watch(ctx, t)
	first.sees("SERVING")
	p.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	first.sees("NOT_SERVING")
	p.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_SERVING)
	first.sees("SERVING")

	short, cancel := context.WithCancel(ctx)
	defer cancel()
	second := p.watch(short, t)
	second.sees("SERVING")
	cancel()
	second.ends(codes.OK)

	late, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	conn, err := connect(ctx, p.alice, "bob")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := grpc_health_v1.NewHealthClient(conn).Watch(late, &grpc_health_v1.HealthCheckRequest{})
	for err == nil {
		_, err = stream.Recv()
	}
	// The server has the deadline, too, and says Canceled; which of the two is first is chance.
	if code := status.Code(err); code != codes.DeadlineExceeded && code != codes.Canceled {
		t.Errorf("a stream with a deadline: %v", err)
	}

	p.stop()
	first.sees("NOT_SERVING")
	first.ends(codes.Unavailable)
	if err := <-p.served; err != nil {
		t.Error(err)
	}
}

func testClosed(ctx context.Context, t *testing.T, mode mesh.Mode) {
	p := start(ctx, t, mode)
	v := p.watch(ctx, t)
	v.sees("SERVING")
	if err := p.bob.Close(); err != nil {
		t.Error(err)
	}
	v.ends(codes.Unavailable)
	if err := <-p.served; !errors.Is(err, mesh.ErrClosed) {
		t.Errorf("bob's server has ended with %v", err)
	}
}

// Bob's sidecar is killed: it says nothing to alice.
func testKilled(ctx context.Context, t *testing.T, mode mesh.Mode) {
	if mode == mesh.InProcess {
		t.Skip("the sidecar is not a process of its own")
	}
	p := start(ctx, t, mode)
	v := p.watch(ctx, t)
	v.sees("SERVING")
	sidecar, err := os.FindProcess(p.bob.SidecarPID())
	if err != nil {
		t.Fatal(err)
	}
	if err := sidecar.Kill(); err != nil {
		t.Fatal(err)
	}
	v.ends(codes.Unavailable)

	// The next one starts, and knows of bob's listener.
	var got strings.Builder
	if err := check(ctx, p.alice, "bob", &got); err != nil || got.String() != "SERVING\n" {
		t.Errorf("after the next sidecar has started: %q, %v", got.String(), err)
	}
}
