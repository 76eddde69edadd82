//go:build linux || darwin

package interop

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// endTime is how long a sidecar may take to end.
const endTime = 5 * time.Second

// A process is a sidecar that an agent has started.
type process struct {
	*exec.Cmd
	socket string
	stderr *logBuffer
	done   chan struct{} // closed at its end
	err    error         // how it ended; read after done
}

// baseSidecarCommand is this test binary as a base sidecar, or the executable that the environment names:
// an original one, to see whether the table is true of that as well.
func baseSidecarCommand(t *testing.T) *exec.Cmd {
	t.Helper()
	if original := os.Getenv(originalSidecar); original != "" {
		return exec.Command(original)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = []string{role + "=base-sidecar", iceTimeout + "=2s"}
	return cmd
}

// startProcess starts a sidecar as chatixia's agents do: the socket is named by the environment.
func startProcess(t *testing.T, cmd *exec.Cmd, environ []string) *process {
	t.Helper()
	p := &process{Cmd: cmd, socket: filepath.Join(shortDir(t), "s"), stderr: new(logBuffer), done: make(chan struct{})}
	cmd.Env = append(append(cmd.Env, environ...), "IPC_SOCKET="+p.socket)
	cmd.Stderr = p.stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.done
	})
	return p
}

// awaitSocket polls for the socket file as chatixia's agents do: every 100 ms for up to 5 s.
func (p *process) awaitSocket(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range 50 {
		if _, err := os.Stat(p.socket); err == nil {
			return
		}
		select {
		case <-p.done:
			t.Fatalf("the sidecar ended early: %v\n%s", p.err, p.stderr)
		case <-tick.C:
		}
	}
	t.Fatalf("no socket within 5 s\n%s", p.stderr)
}

// connect dials once, as soon as the file is there.
func (p *process) connect(t *testing.T) net.Conn {
	t.Helper()
	p.awaitSocket(t)
	conn, err := net.Dial("unix", p.socket)
	if err != nil {
		t.Fatalf("the socket is there and cannot be connected to: %v", err)
	}
	return conn
}

// wait waits for its end by itself.
func (p *process) wait() error {
	select {
	case <-p.done:
		return p.err
	case <-time.After(endTime):
		_ = p.Process.Signal(syscall.SIGQUIT) // a Go program then says what it waits for
		<-p.done
		return fmt.Errorf("still running %s after its agent has left", endTime)
	}
}

// terminate ends it by SIGTERM.
func (p *process) terminate() error {
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return p.wait()
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
