//go:build linux || darwin

package mesh

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/link"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// To give up, stop is called with the link open.
func TestStopWhileConnected(t *testing.T) {
	for _, mode := range []Mode{InProcess, SelfExec} {
		t.Run(mode.String(), func(t *testing.T) {
			l, err := launch(context.Background(), &Config{Mode: mode}, testSettings())
			if err != nil {
				t.Fatal(err)
			}
			mustGreet(t, l)
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			l.stop(ctx)
			if err := l.diagnose(); err != nil {
				t.Errorf("diagnosis: %v", err)
			}
			if err := awaitEnd(l.link); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the link is open still")
			}
			l.link.Close()
		})
	}
}

func TestSidecarKilled(t *testing.T) {
	l, err := launch(context.Background(), &Config{Mode: SelfExec}, testSettings())
	if err != nil {
		t.Fatal(err)
	}
	defer l.stop(context.Background())
	mustGreet(t, l)
	if err := syscall.Kill(l.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := awaitEnd(l.link); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the link of a killed sidecar ends with %v", err)
	}
	l.link.Close()
	l.stop(context.Background())
	err = l.diagnose()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(err.Error(), "killed") || !strings.Contains(err.Error(), strconv.Itoa(l.pid)) {
		t.Errorf("diagnosis: %v", err)
	}
}

// A sidecar that does not care is ended all the same, within the bound, also
// when Close has no patience at all.
func TestStopEscalates(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(helperEnv, "stubborn")
	l, err := launch(context.Background(), &Config{Mode: Binary, Binary: self}, testSettings())
	if err != nil {
		t.Fatal(err)
	}
	l.link.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	l.stop(ctx)
	if running(l.pid) {
		t.Error("it runs still")
	}
	if err := l.diagnose(); err == nil || !strings.Contains(err.Error(), "SIGTERM") || !strings.Contains(err.Error(), "I stay") {
		t.Errorf("diagnosis: %v", err)
	}
}

// startAgent starts helperAgent and returns its sidecar's pid and socket.
func startAgent(t *testing.T, exe string) (cmd *exec.Cmd, hangUp io.Closer, pid int, socket string) {
	t.Helper()
	cmd = exec.Command(exe)
	cmd.Env = append(os.Environ(), helperEnv+"=agent")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	if _, err := fmt.Fscan(out, &pid, &socket); err != nil {
		t.Fatalf("the agent did not start its sidecar: %v, %v", err, cmd.Wait())
	}
	return cmd, in, pid, socket
}

func TestOrphan(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	agent, _, pid, socket := startAgent(t, self)
	if !running(pid) || !exists(socket) {
		t.Fatalf("before the agent's death: sidecar runs: %t, socket %s exists: %t", running(pid), socket, exists(socket))
	}
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait() // it was killed
	testutil.Eventually(t, "the sidecar ended after its agent was killed", func() bool { return !running(pid) })
	if exists(filepath.Dir(socket)) {
		t.Errorf("it left %s", filepath.Dir(socket))
	}
}

// When an agent dies nobody reads its sidecar's stderr any more. What the
// sidecar logs then must not end it before its time.
func TestSidecarWithoutReader(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	set := testSettings()
	set.Socket, set.Token = socketPath(t), newToken()
	env, err := set.Environ()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), env)
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Close(), r.Close()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	conn, err := dialSidecar(ctx, set.Socket, nil)
	if err != nil {
		t.Fatal(err)
	}
	agent := &launched{link: link.New(conn, nil, wire.Limits{}), token: set.Token}
	mustGreet(t, agent)
	second, err := dialSidecar(ctx, set.Socket, nil) // is refused, which is logged
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if _, err := second.Write(wire.AppendListPeers(nil)); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, second); n > 0 {
		t.Errorf("a second agent was told %d bytes, %v", n, err)
	}
	_, err = conn.Write(wire.AppendListPeers(nil))
	for lines := bufio.NewReader(conn); err == nil; {
		var line string
		if line, err = lines.ReadString('\n'); strings.Contains(line, `"peer_list"`) {
			break
		}
	}
	if err != nil {
		t.Errorf("no answer to list_peers: %v", err)
	}
	_ = conn.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// An agent whose file was replaced, as by an update, can still start sidecars.
func TestExecutableReplaced(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux keeps a removed executable within reach") // /proc/self/exe
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(t.TempDir(), "agent")
	if err := os.WriteFile(exe, self, 0o700); err != nil { //nolint:gosec // it is to be executable
		t.Fatal(err)
	}
	t.Setenv("MESH_TEST_REMOVE_SELF", "1")
	agent, hangUp, pid, _ := startAgent(t, exe)
	if exists(exe) {
		t.Error("the executable is there still")
	}
	if err := hangUp.Close(); err != nil {
		t.Fatal(err)
	}
	if err := agent.Wait(); err != nil {
		t.Error(err)
	}
	if running(pid) {
		t.Error("the sidecar runs still")
	}
}
