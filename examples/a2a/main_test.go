package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/a2aproject/a2a-go/a2a"
	"github.com/a2aproject/a2a-go/a2asrv"
	"github.com/a2aproject/a2a-go/a2asrv/eventqueue"
	"go.uber.org/goleak"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/signaling"
)

func TestMain(m *testing.M) {
	if mesh.SidecarMain() {
		return
	}
	goleak.VerifyTestMain(m)
}

// A pair is bob, who serves an agent with its card, and alice.
type pair struct {
	bob, alice *mesh.Mesh
	served     chan error // how bob's server has ended
}

func start(ctx context.Context, t *testing.T, mode mesh.Mode, agent http.Handler) *pair {
	t.Helper()
	server, err := signaling.New(signaling.Config{Dev: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	web := httptest.NewServer(server)
	t.Cleanup(web.Close)
	url := "ws" + strings.TrimPrefix(web.URL, "http") + "/ws"
	p := &pair{join(ctx, t, mode, url, "bob"), join(ctx, t, mode, url, "alice"), make(chan error, 1)}
	l, err := p.bob.Listen("http")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { p.served <- serve(ctx, l, agent) })
	t.Cleanup(work.Wait)
	t.Cleanup(stop)
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

// A slow agent says one word, and the next once it may.
type slow struct {
	shouter
	may chan struct{}
}

func (s slow) Execute(ctx context.Context, request *a2asrv.RequestContext, events eventqueue.Queue) error {
	for _, word := range []string{"one", "two"} {
		if err := events.Write(ctx, a2a.NewArtifactEvent(request, a2a.TextPart{Text: word})); err != nil {
			return err
		}
		<-s.may
	}
	return end(ctx, request, events, a2a.TaskStateCompleted)
}

// slowly starts a pair of which bob is slow, and a stream of his, of which it takes the first line.
func slowly(ctx context.Context, t *testing.T, mode mesh.Mode) (p *pair, may chan struct{}, lines *bufio.Scanner, ended chan error) {
	t.Helper()
	may = make(chan struct{})
	p = start(ctx, t, mode, handler("bob", slow{may: may}))
	r, w := io.Pipe()
	lines, ended = bufio.NewScanner(r), make(chan error, 1)
	var work sync.WaitGroup
	work.Go(func() {
		ended <- stream(ctx, p.alice, "bob", "count", w)
		_ = w.Close()
	})
	t.Cleanup(work.Wait)
	t.Cleanup(func() { _ = r.Close() })
	t.Cleanup(func() { close(may) })
	if !lines.Scan() || lines.Text() != "one" {
		t.Fatalf("%q is the first line", lines.Text())
	}
	return p, may, lines, ended
}

// rest returns the lines that are left.
func rest(lines *bufio.Scanner) string {
	var all []string
	for lines.Scan() {
		all = append(all, lines.Text())
	}
	return strings.Join(all, ",")
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
	t.Run("shouter", func(t *testing.T) { testShouter(ctx, t, mode) })
	t.Run("card", func(t *testing.T) { testCard(ctx, t, mode) })
	t.Run("stream", func(t *testing.T) { testStream(ctx, t, mode) })
	t.Run("deadline", func(t *testing.T) { testDeadline(ctx, t, mode) })
	t.Run("closed", func(t *testing.T) { testClosed(ctx, t, mode) })
	t.Run("killed", func(t *testing.T) { testKilled(ctx, t, mode) })
}

func testShouter(ctx context.Context, t *testing.T, mode mesh.Mode) {
	p := start(ctx, t, mode, handler("bob", shouter{}))
	long := strings.Repeat("long", 5000)
	for _, tt := range []struct {
		do   func(w io.Writer) error
		want string
	}{
		{func(w io.Writer) error { return describe(ctx, p.alice, "bob", w) }, "bob: repeats in capitals what it is told; at http://bob/a2a\n"},
		{func(w io.Writer) error { return send(ctx, p.alice, "bob", "hello, \x1b bob", w) }, "HELLO, ? BOB\n"},
		{func(w io.Writer) error { return send(ctx, p.alice, "bob", long, w) }, strings.ToUpper(long) + "\n"},
		{func(w io.Writer) error { return stream(ctx, p.alice, "bob", "hello, bob", w) }, "working\nHELLO,\nBOB\ncompleted\n"},
	} {
		var got strings.Builder
		if err := tt.do(&got); err != nil || got.String() != tt.want {
			t.Errorf("%.100q, %v; want %.100q", got.String(), err, tt.want)
		}
	}
	if err := p.bob.WaitPeer(ctx, "alice"); err != nil {
		t.Fatal(err)
	}
	// The other way round there is no agent.
	if err := send(ctx, p.bob, "alice", "hello", io.Discard); !errors.Is(err, mesh.ErrNoService) {
		t.Errorf("a peer that serves nothing: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := send(short, p.alice, "carol", "hello", io.Discard); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "start the peer: ") {
		t.Errorf("a peer that is not there: %v", err)
	}
}

// A card that names a host is taken to name a peer.
func testCard(ctx context.Context, t *testing.T, mode mesh.Mode) {
	p := start(ctx, t, mode, handler("localhost", shouter{}))
	if err := send(ctx, p.alice, "bob", "hello", io.Discard); !errors.Is(err, mesh.ErrNotConnected) {
		t.Errorf("a card of another agent: %v", err)
	}
}

// What the agent has said arrives while the agent still works.
func testStream(ctx context.Context, t *testing.T, mode mesh.Mode) {
	_, may, lines, ended := slowly(ctx, t, mode)
	may <- struct{}{}
	if !lines.Scan() || lines.Text() != "two" {
		t.Errorf("%q is the second line", lines.Text())
	}
	may <- struct{}{}
	if got := rest(lines); got != "completed" {
		t.Errorf("%q is the rest", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func testDeadline(ctx context.Context, t *testing.T, mode mesh.Mode) {
	p, _, _, _ := slowly(ctx, t, mode)
	late, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := send(late, p.alice, "bob", "count", io.Discard); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a message with a deadline: %v", err)
	}
}

func testClosed(ctx context.Context, t *testing.T, mode mesh.Mode) {
	p, _, lines, ended := slowly(ctx, t, mode)
	if err := p.bob.Close(); err != nil {
		t.Error(err)
	}
	broken(t, lines, ended)
	if err := <-p.served; !errors.Is(err, mesh.ErrClosed) {
		t.Errorf("bob's server has ended with %v", err)
	}
}

// Bob's sidecar is killed: it says nothing to alice.
func testKilled(ctx context.Context, t *testing.T, mode mesh.Mode) {
	if mode == mesh.InProcess {
		t.Skip("the sidecar is not a process of its own")
	}
	p, _, lines, ended := slowly(ctx, t, mode)
	sidecar, err := os.FindProcess(p.bob.SidecarPID())
	if err != nil {
		t.Fatal(err)
	}
	if err := sidecar.Kill(); err != nil {
		t.Fatal(err)
	}
	broken(t, lines, ended)
}

// broken expects that a stream breaks off, and does not look complete. A forked sidecar whose agent closes may have reset the stream before the
// link ends.
func broken(t *testing.T, lines *bufio.Scanner, ended chan error) {
	t.Helper()
	if got := rest(lines); got != "" {
		t.Errorf("%q after the end of the peer", got)
	}
	err := <-ended
	if !errors.Is(err, mesh.ErrPeerGone) && !errors.Is(err, mesh.ErrStreamReset) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the stream has ended with %v", err)
	}
}
