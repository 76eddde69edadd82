//go:build linux || darwin

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
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

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// mainEnv makes the test binary act as the command.
const mainEnv = "CHATIXIA_SIDECAR_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// timeout bounds what a test waits for.
const timeout = testutil.Patience

// command returns the command, to run in an empty directory and without the variables that it reads.
func command(t *testing.T, args ...string) (cmd *exec.Cmd, stderr *testutil.LogBuffer) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd, stderr = exec.Command(exe, args...), new(testutil.LogBuffer)
	cmd.Dir = testutil.ShortDir(t)
	cmd.Env = []string{mainEnv + "=1", "SIGNALING_URL=ws://127.0.0.1:1/ws", "GORACE=atexit_sleep_ms=0"}
	cmd.Stderr = stderr
	cmd.WaitDelay = timeout
	return cmd, stderr
}

// start starts the command and kills it if it does not end by itself.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hung := time.AfterFunc(timeout, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() { hung.Stop() })
}

// dial connects to the command once it logs that it listens.
func dial(t *testing.T, log *testutil.LogBuffer, path string) net.Conn {
	t.Helper()
	log.Wait(t, "socket=")
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// A .env file names the socket; an agent connects and disconnects.
func TestServesOneAgent(t *testing.T) {
	cmd, stderr := command(t)
	socket := filepath.Join(cmd.Dir, "here")
	dotenv := "IPC_SOCKET=" + socket + "\nSIGNALING_URL=not-taken\nTURN_URL=turn:127.0.0.1:1\nTURN_SECRET=x\n"
	if err := os.WriteFile(filepath.Join(cmd.Dir, ".env"), []byte(dotenv), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, cmd)
	agent := dial(t, stderr, socket)
	if _, err := agent.Write([]byte(`{"type":"list_peers"}` + "\n")); err != nil {
		t.Error(err)
	}
	if line, err := bufio.NewReader(agent).ReadString('\n'); err != nil || !strings.Contains(line, `"peer_list"`) {
		t.Errorf("response %q, %v", line, err)
	}
	_ = agent.Close()
	if err := cmd.Wait(); err != nil || !strings.Contains(stderr.String(), "agent disconnected") {
		t.Errorf("%v, stderr\n%s", err, stderr)
	}
	if _, err := os.Lstat(socket); err == nil {
		t.Error("the socket is still there")
	}
}

func TestSignals(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		for _, served := range []bool{false, true} {
			cmd, stderr := command(t, "-socket", "s")
			start(t, cmd)
			agent := dial(t, stderr, filepath.Join(cmd.Dir, "s"))
			if served {
				if _, err := agent.Write([]byte("\n")); err != nil {
					t.Error(err)
				}
			} else {
				_ = agent.Close()
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v: %v, stderr\n%s", sig, err, stderr)
			}
			_ = agent.Close()
		}
	}
}

func TestExitStatus(t *testing.T) {
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-API-Key") != "ak_wrong" {
			t.Errorf("the API key is %q", r.Header.Get("X-API-Key"))
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
		{name: "identity policy", args: []string{"-socket", "s", "-identity-policy", "all"}, code: 1, want: []string{`"all"`, "-identity-policy", "MESH_IDENTITY_POLICY"}},
		{name: "identity key", args: []string{"-socket", "s", "-identity-key", "none"}, code: 1, want: []string{"none", "mesh key new", "-identity-key", "MESH_IDENTITY_KEY"}},
		{name: "known peers by the environment", args: []string{"-socket", "s", "-identity-policy", "known"}, env: []string{"MESH_KNOWN_PEERS=no/file"},
			code: 1, want: []string{"no/file", "-known-peers", "MESH_KNOWN_PEERS"}},
		{name: "no policy", args: []string{"-socket", "s", "-known-peers", "p"}, code: 1, want: []string{"-identity-policy", "MESH_IDENTITY_POLICY", "member or known"}},
		{name: "no policy for roots of the environment", args: []string{"-socket", "s", "-identity-policy", ""}, env: []string{"MESH_ROOTS=r"},
			code: 1, want: []string{"-identity-policy", "MESH_ROOTS"}},
		{name: "off by a flag", args: []string{"-socket", "no/s", "-identity-policy", "off"}, env: []string{"MESH_IDENTITY_POLICY=member"},
			code: 1, want: []string{"the identity policy is off", "MESH_IDENTITY_POLICY=member", "no/s"}},
		{name: "what a policy needs", args: []string{"-socket", "s", "-identity-policy", "member"}, code: 1, want: []string{"-roots", "MESH_ROOTS"}},
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

// A process that a mesh in mode Binary starts takes all settings from MESH_SIDECAR.
func TestIsSidecarOfMesh(t *testing.T) {
	cmd, stderr := command(t, "-no-such-flag")
	cmd.Env = append(cmd.Env, "MESH_SIDECAR={")
	start(t, cmd)
	if err := cmd.Wait(); err != nil || !strings.Contains(stderr.String(), "MESH_SIDECAR") {
		t.Errorf("%v, stderr\n%s", err, stderr)
	}
}

func TestRunEndsWithContext(t *testing.T) {
	for _, name := range []string{"SIGNALING_URL", "IPC_SOCKET", "ICE_TRANSPORT_POLICY"} {
		t.Setenv(name, "") // run changes them
	}
	t.Setenv("TURN_URL", "")
	t.Chdir(testutil.ShortDir(t))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	log := new(testutil.LogBuffer)
	go func() {
		ended <- run(ctx, []string{"-socket", "s", "-signaling-url", "ws://127.0.0.1:1/ws"}, log)
	}()
	conn := dial(t, log, "s")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	_ = conn.Close()
	if !strings.Contains(log.String(), "stopped by a signal") {
		t.Errorf("log:\n%s", log)
	}
}

// The error about a socket that is taken says who has it, and how to choose another one.
func TestSocketTaken(t *testing.T) {
	first, log := command(t, "-socket", "s")
	start(t, first)
	_ = dial(t, log, filepath.Join(first.Dir, "s")).Close()
	second, stderr := command(t, "-socket", filepath.Join(first.Dir, "s"))
	start(t, second)
	err := second.Wait()
	if second.ProcessState.ExitCode() != 1 {
		t.Errorf("%v, want exit status 1", err)
	}
	for _, want := range []string{fmt.Sprintf("uid %d, pid %d", os.Getuid(), first.Process.Pid), "-socket or IPC_SOCKET"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("stderr does not say %q:\n%s", want, stderr)
		}
	}
	if err := first.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := first.Wait(); err != nil {
		t.Error(err)
	}
}
