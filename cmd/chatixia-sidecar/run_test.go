//go:build linux || darwin

package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// mainEnv makes the test binary the command itself.
const mainEnv = "CHATIXIA_SIDECAR_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// command is the command in an empty directory, with nothing in its
// environment that concerns it.
func command(t *testing.T, args ...string) (cmd *exec.Cmd, stderr *bytes.Buffer) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir, whose path can be too long for a socket.
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	cmd, stderr = exec.Command(exe, args...), new(bytes.Buffer)
	cmd.Dir = dir
	cmd.Env = []string{mainEnv + "=1", "SIGNALING_URL=ws://127.0.0.1:1/ws", "GORACE=atexit_sleep_ms=0"}
	cmd.Stderr = stderr
	cmd.WaitDelay = 10 * time.Second
	return cmd, stderr
}

// start starts it and makes sure that it ends.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hung := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() { hung.Stop() })
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			return conn
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(err)
		}
	}
}

// The socket is named by a .env file, an agent comes and goes.
func TestServesOneAgent(t *testing.T) {
	cmd, stderr := command(t)
	socket := filepath.Join(cmd.Dir, "here")
	dotenv := "IPC_SOCKET=" + socket + "\nSIGNALING_URL=not-taken\nTURN_URL=turn:127.0.0.1:1\nTURN_SECRET=x\n"
	if err := os.WriteFile(filepath.Join(cmd.Dir, ".env"), []byte(dotenv), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, cmd)
	agent := dial(t, socket)
	if _, err := agent.Write([]byte(`{"type":"list_peers"}` + "\n")); err != nil {
		t.Error(err)
	}
	b := make([]byte, 100)
	n, err := agent.Read(b)
	if got := string(b[:n]); err != nil || !strings.Contains(got, `"peer_list"`) {
		t.Errorf("answer %q, %v", got, err)
	}
	_ = agent.Close()
	if err := cmd.Wait(); err != nil || !strings.Contains(stderr.String(), "the agent is gone") {
		t.Errorf("%v, stderr\n%s", err, stderr)
	}
	if _, err := os.Lstat(socket); err == nil {
		t.Error("the socket is there still")
	}
}

func TestSignals(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		for _, served := range []bool{false, true} {
			cmd, stderr := command(t, "-socket", "s")
			start(t, cmd)
			agent := dial(t, filepath.Join(cmd.Dir, "s"))
			if served {
				if _, err := agent.Write([]byte("\n")); err != nil {
					t.Error(err)
				}
			} else {
				_ = agent.Close()
			}
			began := time.Now()
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v: %v, stderr\n%s", sig, err, stderr)
			}
			if d := time.Since(began); d > 5*time.Second {
				t.Errorf("%v: took %v", sig, d)
			}
			_ = agent.Close()
		}
	}
}

func TestExitStatus(t *testing.T) {
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-API-Key") != "ak_wrong" {
			t.Errorf("the key presented is %q", r.Header.Get("X-API-Key"))
		}
		http.Error(w, "no", http.StatusUnauthorized)
	}))
	defer refusing.Close()
	for _, tc := range []struct {
		name string
		args []string
		env  []string
		code int
		want []string
		not  string
	}{
		{name: "help", args: []string{"-h"}, code: 0, want: []string{"usage: chatixia-sidecar", "IPC_SOCKET"}},
		{name: "wrong flag", args: []string{"-no-such"}, code: 2, want: []string{"no-such", "try -h"}},
		{name: "log format", args: []string{"-log-format", "xml"}, code: 2, want: []string{"-log-format", "xml"}},
		{name: "log level", args: []string{"-log-level", "loud"}, code: 2, want: []string{"-log-level", "loud"}},
		{name: "signaling URL", args: []string{"-signaling-url", "http://h"}, code: 1, want: []string{"http://h", "-signaling-url", "SIGNALING_URL"}},
		{name: "socket path", args: []string{"-socket", strings.Repeat("x", 200)}, code: 1, want: []string{"IPC_SOCKET", "200 bytes"}},
		{name: "no such directory", args: []string{"-socket", "no/s"}, code: 1, want: []string{"no/s"}},
		{name: "refused credentials", args: []string{"-socket", "s", "-token-url", refusing.URL}, env: []string{"API_KEY=ak_wrong"},
			code: 1, want: []string{refusing.URL, "API_KEY"}, not: "ak_wrong"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cmd, stderr := command(t, tc.args...)
			cmd.Env = append(cmd.Env, tc.env...)
			start(t, cmd)
			err := cmd.Wait()
			var exit *exec.ExitError
			if cmd.ProcessState.ExitCode() != tc.code || err != nil && !errors.As(err, &exit) {
				t.Errorf("%v, want exit status %d", err, tc.code)
			}
			for _, w := range tc.want {
				if !strings.Contains(stderr.String(), w) {
					t.Errorf("stderr does not say %q:\n%s", w, stderr)
				}
			}
			if tc.not != "" && strings.Contains(stderr.String(), tc.not) {
				t.Errorf("stderr shows a secret:\n%s", stderr)
			}
		})
	}
}

// A process that a mesh of mode Binary starts takes everything from there.
func TestIsSidecarOfMesh(t *testing.T) {
	cmd, stderr := command(t, "-no-such-flag")
	cmd.Env = append(cmd.Env, "MESH_SIDECAR={")
	start(t, cmd)
	if err := cmd.Wait(); err != nil || !strings.Contains(stderr.String(), "MESH_SIDECAR") {
		t.Errorf("%v, stderr\n%s", err, stderr)
	}
}

func TestRunEndsWithContext(t *testing.T) {
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"SIGNALING_URL", "IPC_SOCKET", "ICE_TRANSPORT_POLICY"} {
		t.Setenv(name, "") // run changes them
	}
	t.Setenv("TURN_URL", "")
	t.Chdir(dir)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	var out bytes.Buffer
	go func() {
		ended <- run(ctx, []string{"-socket", "s", "-signaling-url", "ws://127.0.0.1:1/ws", "-log-format", "json"}, &out)
	}()
	conn := dial(t, "s")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	_ = conn.Close()
	if !strings.Contains(out.String(), `"message":"stopped by a signal"`) {
		t.Errorf("log:\n%s", out.String())
	}
}
