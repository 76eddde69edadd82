//go:build linux || darwin

package mesh

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/sidecar"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// A start that is given up leaves nothing of the sidecar, though its link is open.
func TestStartIsGivenUp(t *testing.T) {
	for _, mode := range []Mode{InProcess, SelfExec} {
		t.Run(mode.String(), func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			cfg := alone(mode)
			cfg.WaitSignaling = true
			cfg.OnSignaling = func(SignalingStatus) { cancel() } // the sidecar runs by then
			if _, err := New(ctx, cfg); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			if left := leftChild(); left != "" {
				t.Error("left:", left)
			}
			if socket := privateSocket(); socket != "" {
				t.Error("left:", socket)
			}
		})
	}
}

// The end of a sidecar that was killed is reported with what is known of it.
func TestSidecarKilled(t *testing.T) {
	var reports testutil.Record[error]
	cfg := alone(SelfExec)
	cfg.OnError = reports.Add
	m := start(t, cfg)
	pid := m.SidecarPID()
	kill(t, pid)
	all := reports.Wait(t, "the report", func(all []error) bool { return len(all) > 0 })
	var exit *exec.ExitError
	if err := all[0]; !errors.Is(err, ErrSidecarLost) || !errors.As(err, &exit) ||
		!strings.Contains(err.Error(), "killed") || !strings.Contains(err.Error(), strconv.Itoa(pid)) {
		t.Errorf("reported %v", err)
	}
}

// A sidecar that does not end by itself, nor by SIGTERM, is killed, and what that
// took is reported.
func TestStopEscalates(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(helperEnv, "stubborn")
	var reports testutil.Record[error]
	cfg := alone(Binary)
	cfg.Binary, cfg.OnError = self, reports.Add
	m := start(t, cfg)
	if err := m.Connect(t.Context(), "bob"); !errors.Is(err, ErrSidecarLost) {
		t.Errorf("connect: %v", err)
	}
	if err := m.Close(); err != nil { // which waits no longer for it to end by itself
		t.Error(err)
	}
	if left := leftChild(); left != "" {
		t.Error("left:", left)
	}
	all := reports.Wait(t, "the report", func(all []error) bool { return len(all) > 0 })
	if text := all[0].Error(); !strings.Contains(text, "SIGTERM") || !strings.Contains(text, "I stay") {
		t.Errorf("reported %v", all[0])
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

// When an agent dies, its end of the sidecar's stderr is closed. What the sidecar
// logs then must not end it before it has cleaned up.
func TestSidecarWithoutReader(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	set := sidecar.Settings{
		Signaling: signal.Settings{URL: "ws://127.0.0.1:1/ws", TokenURL: "http://127.0.0.1:1/api/token"}, Socket: socketPath(t), Token: "t",
	}
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
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	dial := func() (conn net.Conn, lines *bufio.Reader) {
		t.Helper()
		testutil.Eventually(t, "the sidecar listens", func() bool {
			conn, err = sock.Dial(t.Context(), set.Socket)
			return err == nil
		})
		if err := conn.SetDeadline(time.Now().Add(testutil.Patience)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn, bufio.NewReader(conn)
	}
	conn, lines := dial()
	if _, err := conn.Write(wire.AppendHello(nil, wire.Hello{Protocol: wire.ProtocolVersion, Token: set.Token})); err != nil {
		t.Fatal(err)
	}
	if line, err := lines.ReadString('\n'); !strings.Contains(line, `"ready"`) {
		t.Fatalf("the response to hello is %q, %v", line, err)
	}
	second, rest := dial() // is refused, which is logged
	if _, err := second.Write(wire.AppendListPeers(nil)); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, rest); n > 0 {
		t.Errorf("a second agent was told %d bytes, %v", n, err)
	}
	_, err = conn.Write(wire.AppendListPeers(nil))
	for err == nil {
		var line string
		if line, err = lines.ReadString('\n'); strings.Contains(line, `"peer_list"`) {
			break
		}
	}
	if err != nil {
		t.Errorf("no response to list_peers: %v", err)
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
		t.Error("the executable is still there")
	}
	if err := hangUp.Close(); err != nil {
		t.Fatal(err)
	}
	if err := agent.Wait(); err != nil {
		t.Error(err)
	}
	if running(pid) {
		t.Error("the sidecar is still running")
	}
}
