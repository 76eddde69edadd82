package main

import (
	"bufio"
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/signaling"
)

const (
	// asExample makes the test binary the example.
	asExample = "MCP_TEST_RUN"
	// patience bounds a test. It is generous because the machine may be busy.
	patience = 2 * time.Minute
	// atOnce is how long what happens at once may take, on such a machine.
	atOnce = 10 * time.Second
	// forever is a countdown that takes more than a day.
	forever = `{"from":100000}`
)

func TestMain(m *testing.M) {
	if os.Getenv(asExample) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// An agent is this program in a process of its own, with a sidecar of its own.
type agent struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout *bufio.Scanner
	stderr strings.Builder
}

func start(t *testing.T, url, name string, args ...string) *agent {
	t.Helper()
	args = append([]string{"-name", name}, args...)
	if runtime.GOOS != "windows" { // sidecars are not forked there
		args = append([]string{"-fork"}, args...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	a := &agent{t: t, cmd: exec.CommandContext(ctx, os.Args[0], args...)}
	t.Cleanup(func() {
		cancel()
		_ = a.cmd.Wait() // again, unless the test has failed
	})
	// With the race detector programs sleep for a second at their end.
	a.cmd.Env = append(os.Environ(), asExample+"=1", "SIGNALING_URL="+url, "GORACE=atexit_sleep_ms=0")
	a.cmd.Stderr = &a.stderr
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

// await reads lines until one matches the pattern.
func (a *agent) await(pattern string) {
	a.t.Helper()
	whole := regexp.MustCompile("^" + pattern + "$")
	for a.stdout.Scan() {
		if whole.MatchString(a.stdout.Text()) {
			return
		}
		a.t.Logf("%q is not %q", a.stdout.Text(), pattern)
	}
	_ = a.cmd.Wait()
	a.t.Fatalf("no more output instead of %q; stderr: %s", pattern, a.stderr.String())
}

// exit expects that the agent ends with this status, and returns what else it has printed.
func (a *agent) exit(status int) (lines []string) {
	a.t.Helper()
	for a.stdout.Scan() {
		lines = append(lines, a.stdout.Text())
	}
	_ = a.cmd.Wait() // the status tells
	if got := a.cmd.ProcessState.ExitCode(); got != status {
		a.t.Errorf("ended with status %d, want %d; stderr: %s", got, status, a.stderr.String())
	}
	return lines
}

// fails expects that the agent ends with an error.
func (a *agent) fails(pattern string) {
	a.t.Helper()
	a.exit(1)
	if !regexp.MustCompile("^error: .*" + pattern).MatchString(a.stderr.String()) {
		a.t.Errorf("stderr: %s; want %q", a.stderr.String(), pattern)
	}
}

func (a *agent) interrupt() {
	a.t.Helper()
	if err := a.cmd.Process.Signal(os.Interrupt); err != nil {
		a.t.Skip("no interrupt on this system: ", err)
	}
}

func (a *agent) kill() {
	a.t.Helper()
	if err := a.cmd.Process.Kill(); err != nil {
		a.t.Fatal(err)
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

// startServer starts bob.
func startServer(t *testing.T) (url string, bob *agent) {
	t.Helper()
	url = startSignaling(t)
	bob = start(t, url, "bob", "serve")
	bob.await("serving")
	return url, bob
}

func TestCalls(t *testing.T) {
	url, bob := startServer(t)
	// Progress is printed as it comes, and may come beside the result.
	for _, tc := range []struct{ name, line, printed string }{
		{"list", "list bob", `countdown: counts .*\nnow: tells .*`},
		{"utc", "call bob now", `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`},
		{"tokyo", `call bob now {"zone":"Asia/Tokyo"}`, `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+09:00`},
		{"count", `call bob countdown {"from":3,"step":1}`, `countdown: 0 of 3\ncountdown: 1 of 3\ncountdown: 2 of 3\nlift-off, count`},
	} {
		lines := start(t, url, tc.name, strings.Fields(tc.line)...).exit(0)
		slices.Sort(lines)
		if got := strings.Join(lines, "\n"); !regexp.MustCompile("^" + tc.printed + "$").MatchString(got) {
			t.Errorf("%s prints %q, want %q", tc.line, got, tc.printed)
		}
	}
	for name, tc := range map[string][2]string{
		"mars": {`call bob now {"zone":"Mars"}`, "unknown time zone Mars"},
		"type": {`call bob now {"zone":1}`, "zone"},
		"tool": {"call bob nonesuch", `unknown tool "nonesuch"`},
		"json": {"call bob now {", "JSON"},
		"step": {`-patience 200ms call bob countdown {"from":1,"step":10000000000000}`, "context deadline exceeded"},
		"late": {"-patience 200ms call bob countdown " + forever, "context deadline exceeded"},
	} {
		start(t, url, name, strings.Fields(tc[0])...).fails(tc[1])
	}
	bob.await("a countdown of late has ended early: .*")
	bob.interrupt()
	bob.exit(0)
}

// A call that is cancelled ends at both ends, and its session goes on.
func TestCancel(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	url, bob := startServer(t)
	carol, err := mesh.New(ctx, mesh.Config{SignalingURL: url, APIKey: "carol", WaitSignaling: true})
	if err != nil {
		t.Fatal(err)
	}
	defer carol.Close()
	calling, stop := context.WithCancel(ctx)
	defer stop()
	session, err := connect(ctx, carol, "bob", func(*mcp.ProgressNotificationParams) { stop() })
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if err := call(calling, session, "countdown", forever); !errors.Is(err, context.Canceled) {
		t.Errorf("the call that was cancelled: %v", err)
	}
	bob.await("a countdown of carol has ended early: context canceled")
	if tools, err := session.ListTools(ctx, nil); err != nil || len(tools.Tools) != 2 {
		t.Errorf("the next call of the session: %v, %v", tools, err)
	}
}

// What happens to one end in the middle of a call, the other one knows at once.
func TestEnds(t *testing.T) {
	url, bob := startServer(t)
	begin := func(name string) *agent {
		a := start(t, url, name, "call", "bob", "countdown", forever)
		a.await("countdown: 0 of 100000")
		return a
	}
	end := func(what string, do func(), known func()) {
		began := time.Now()
		do()
		known()
		if took := time.Since(began); took > atOnce {
			t.Errorf("%s was known after %v", what, took)
		}
	}
	killed := begin("killed")
	end("the client that was killed", killed.kill, func() { bob.await("a countdown of killed has ended early: .*") })
	client := begin("client")
	end("the server that was killed", bob.kill, func() { client.fails("the stream was reset|the peer is gone") })

	url, bob = startServer(t)
	interrupted := begin("interrupted")
	end("the client that was interrupted", interrupted.interrupt, func() { bob.await("a countdown of interrupted has ended early: .*") })
	interrupted.fails("context canceled")
	client = begin("client")
	end("the server that was interrupted", bob.interrupt, func() { client.fails("the stream was reset|the peer is gone") })
	bob.exit(0)
}

func TestUsage(t *testing.T) {
	for _, line := range []string{"", "serve bob", "list", "call bob", "call bob tool {} {}", "nonesuch bob"} {
		a := start(t, "", "alice", strings.Fields(line)...)
		a.exit(2)
		if !strings.HasPrefix(a.stderr.String(), "usage: mcp ") {
			t.Errorf("%q: stderr: %s", line, a.stderr.String())
		}
	}
}
