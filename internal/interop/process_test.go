//go:build linux || darwin

package interop

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// A process is a sidecar started for an agent.
type process struct {
	*exec.Cmd
	socket string
	stderr *testutil.LogBuffer
	done   chan struct{} // closed at its end
	err    error         // how it ended; read after done
}

// baseSidecarCommand is this test binary as a base sidecar, or the original one that the environment names, to run the
// table with that.
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

// startProcess starts a sidecar as chatixia's agents do, with the socket's path in its environment.
func startProcess(t *testing.T, cmd *exec.Cmd, environ []string) *process {
	t.Helper()
	p := &process{Cmd: cmd, socket: filepath.Join(testutil.ShortDir(t), "s"), stderr: new(testutil.LogBuffer), done: make(chan struct{})}
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

// awaitSocket polls for the socket file, as chatixia's agents do.
func (p *process) awaitSocket(t *testing.T) {
	t.Helper()
	testutil.Eventually(t, "a socket of the sidecar at "+p.socket, func() bool {
		select {
		case <-p.done:
			t.Fatalf("the sidecar ended early: %v\n%s", p.err, p.stderr)
		default:
		}
		_, err := os.Stat(p.socket)
		return err == nil
	})
}

// connect dials once, as soon as the socket file is there.
func (p *process) connect(t *testing.T) net.Conn {
	t.Helper()
	p.awaitSocket(t)
	conn, err := net.Dial("unix", p.socket)
	if err != nil {
		t.Fatalf("the socket is there and cannot be connected to: %v", err)
	}
	return conn
}

// wait blocks until the process has ended by itself.
func (p *process) wait() error {
	select {
	case <-p.done:
		return p.err
	case <-time.After(patience):
		_ = p.Process.Signal(syscall.SIGQUIT) // a Go program then prints its goroutines
		<-p.done
		return fmt.Errorf("still running %s after its agent has left", patience)
	}
}

// terminate ends it by SIGTERM.
func (p *process) terminate() error {
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return p.wait()
}
