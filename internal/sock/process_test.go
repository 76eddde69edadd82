//go:build linux || darwin

package sock_test

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// A watched context is one that tells when somebody waits for its end, which is when the process is watched.
type watched struct {
	context.Context
	begun chan struct{}
	once  sync.Once
}

func (w *watched) Done() <-chan struct{} {
	w.once.Do(func() { close(w.begun) })
	return w.Context.Done()
}

// The end of a process is seen, that of the context is, too, and a process that is gone is not waited for.
func TestWaitProcess(t *testing.T) {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	ctx, cancel := context.WithCancelCause(t.Context())
	cancelled, ended := make(chan error, 1), make(chan error, 1)
	go func() { cancelled <- sock.WaitProcess(ctx, pid) }()
	watch := &watched{Context: t.Context(), begun: make(chan struct{})}
	go func() { ended <- sock.WaitProcess(watch, pid) }()
	why := errors.New("enough")
	cancel(why)
	if err := testutil.Take(t, "the end of the context", cancelled); !errors.Is(err, why) {
		t.Errorf("got %v, want the cause", err)
	}
	testutil.Take(t, "the watch of the process", watch.begun)
	if len(ended) > 0 {
		t.Errorf("it has ended: %v", <-ended)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := testutil.Take(t, "the end of the process", ended); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if err := sock.WaitProcess(t.Context(), pid); err == nil {
		t.Error("no error for a process that is gone")
	}
}

// Bytes that wait are counted; a connection that is no Unix socket has no process and no bytes.
func TestWaitPeer(t *testing.T) {
	path := filepath.Join(testutil.ShortDir(t), "s")
	listener, err := sock.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	near, err := sock.Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	if _, err := near.Write([]byte("12345")); err != nil {
		t.Fatal(err)
	}
	if n := sock.Queued(far); n != 5 {
		t.Errorf("%d bytes wait, want 5", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- sock.WaitPeer(ctx, far) }() // for this process
	cancel()
	if err := testutil.Take(t, "the end of the context", done); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	pipe, other := net.Pipe()
	defer pipe.Close()
	defer other.Close()
	if err := sock.WaitPeer(t.Context(), pipe); !errors.Is(err, sock.ErrUnsupported) {
		t.Errorf("a pipe in memory: %v", err)
	}
	if n := sock.Queued(pipe); n != 0 {
		t.Errorf("%d bytes wait in a pipe in memory", n)
	}
}
