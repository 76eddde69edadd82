package main

import (
	"bufio"
	"context"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/signaling"
)

// asAgent makes the test binary the agent.
const asAgent = "AGENT_TEST_RUN"

// patience bounds a test. It is generous because the machine may be busy.
const patience = time.Minute

func TestMain(m *testing.M) {
	if os.Getenv(asAgent) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// An agent is this program in a process of its own.
type agent struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Scanner
	stderr strings.Builder
}

func start(t *testing.T, url string, args ...string) *agent {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	a := &agent{t: t, cmd: exec.CommandContext(ctx, os.Args[0], args...)}
	t.Cleanup(func() {
		cancel()
		_ = a.cmd.Wait() // again, unless the test has failed
	})
	a.cmd.Env = append(os.Environ(), asAgent+"=1", "SIGNALING_URL="+url)
	a.cmd.Stderr = &a.stderr
	var err error
	if a.stdin, err = a.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := a.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	a.stdout = bufio.NewScanner(stdout)
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return a
}

// enter types a line.
func (a *agent) enter(line string) {
	a.t.Helper()
	if _, err := io.WriteString(a.stdin, line+"\n"); err != nil {
		a.t.Fatal(err)
	}
}

// expect reads the next line, which must match the pattern.
func (a *agent) expect(pattern string) {
	a.t.Helper()
	if !a.stdout.Scan() {
		a.t.Fatalf("no more output instead of %q; stderr: %s", pattern, a.stderr.String())
	}
	if line := a.stdout.Text(); !regexp.MustCompile("^" + pattern + "$").MatchString(line) {
		a.t.Fatalf("printed %q, want %q", line, pattern)
	}
}

// exit expects that the agent prints nothing more and ends with this status.
func (a *agent) exit(status int) {
	a.t.Helper()
	for a.stdout.Scan() {
		a.t.Errorf("printed %q", a.stdout.Text())
	}
	_ = a.cmd.Wait() // the status tells
	if got := a.cmd.ProcessState.ExitCode(); got != status {
		a.t.Errorf("ended with status %d, want %d; stderr: %s", got, status, a.stderr.String())
	}
}

func startSignaling(t *testing.T) (url string) {
	t.Helper()
	server, err := signaling.New(signaling.Config{Dev: true})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(server)
	t.Cleanup(func() {
		web.Close()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return "ws" + strings.TrimPrefix(web.URL, "http") + "/ws"
}

func TestTwoAgents(t *testing.T) {
	url := startSignaling(t)
	bob := start(t, url, "bob")
	bob.expect("joined as bob")
	args := []string{"-fork", "alice"}
	if runtime.GOOS == "windows" {
		args = args[1:] // sidecars are not forked there
	}
	alice := start(t, url, args...)
	alice.expect("joined as alice")
	alice.expect(`\+ bob`)
	bob.expect(`\+ alice`)

	alice.enter("peers")
	alice.expect("peers: bob")
	alice.enter(`send bob {"type":"chat","payload":"hi"}`)
	bob.expect(`alice: {"type":"chat","payload":"hi"}`)
	alice.enter(`broadcast {"type":"chat","payload":"all"}`)
	bob.expect(`alice: {"type":"chat","payload":"all"}`)
	alice.enter(`request bob {"type":"echo_request","payload":[1]}`)
	bob.expect(`alice: {"type":"echo_request","request_id":"\w+","timeout_ms":\d+,"payload":\[1\]}`)
	alice.expect(`bob answers: {"type":"echo_response","request_id":"\w+","payload":\[1\]}`)
	alice.enter("send bob {\"type\":\"chat\",\"payload\":\"\u202e\u009b\"}")
	bob.expect(`alice: {"type":"chat","payload":"\?\?"}`)

	for command, text := range map[string]string{
		`request bob {"type":"coffee_request"}`: `.*no handler for the message: type "coffee_request".*`,
		`send dave {"type":"chat"}`:             `.*no live link.*`,
		`send bob hi`:                           `not a MESSAGE: .*; the commands are .*`,
		`send bob`:                              `.*Message\.Type is empty`,
		`dance {}`:                              `the commands are .*`,
		`open bob echo hi`:                      `.*nobody listens.*`,
		`offer no such`:                         `.*name of the service.*`,
	} {
		alice.enter(command)
		alice.expect("error: " + text)
	}

	bob.enter("offer echo")
	bob.expect("listens for echo")
	alice.enter("open bob echo hi there")
	alice.expect("bob/echo answers: hi there")

	alice.enter("quit")
	alice.exit(0)
	bob.expect("- alice")
	_ = bob.stdin.Close()
	bob.exit(0)
}

func TestInterrupt(t *testing.T) {
	a := start(t, startSignaling(t), "alice")
	a.expect("joined as alice")
	if err := a.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Skip("no interrupt on this system: ", err)
	}
	a.exit(0)
}

func TestSameName(t *testing.T) {
	url := startSignaling(t)
	first := start(t, url, "alice")
	first.expect("joined as alice")
	second := start(t, url, "alice")
	second.expect("joined as alice")
	first.exit(1)
	if !strings.Contains(first.stderr.String(), "replaced by another instance with the same API key") {
		t.Errorf("stderr: %s", first.stderr.String())
	}
	second.enter("quit")
	second.exit(0)
}

func TestNoSignalingServer(t *testing.T) {
	t.Parallel() // it takes the 5 s after which the agent gives up
	web := httptest.NewServer(nil)
	url := "ws" + strings.TrimPrefix(web.URL, "http") + "/ws"
	web.Close() // no one listens there now
	a := start(t, url, "alice")
	a.exit(1)
	if !strings.Contains(a.stderr.String(), "go run ./cmd/chatixia-signaling -dev") {
		t.Errorf("stderr: %s", a.stderr.String())
	}
}

func TestUsage(t *testing.T) {
	a := start(t, "")
	a.exit(2)
	if !strings.HasPrefix(a.stderr.String(), "usage: agent ") {
		t.Errorf("stderr: %s", a.stderr.String())
	}
}
