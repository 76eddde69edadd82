//go:build unix

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// atOnce is how long what happens at once may take, on a busy machine.
const atOnce = 15 * time.Second

// pythonSDK returns a Python that has the SDK of MCP, and the directory of the scripts for it. It installs the SDK if it is
// not there.
var pythonSDK = sync.OnceValues(func() ([2]string, error) {
	scripts, err := filepath.Abs(filepath.Join("testdata", "mcp"))
	if err != nil {
		return [2]string{}, err
	}
	cmd := exec.Command(filepath.Join("..", "..", "ci", "mcp.sh"))
	var said testutil.LogBuffer
	cmd.Stderr = &said
	python, err := cmd.Output()
	if err != nil {
		return [2]string{}, fmt.Errorf("ci/mcp.sh: %w\n%s", err, &said)
	}
	return [2]string{strings.TrimSpace(string(python)), scripts}, nil
})

// A script is a Python program in a process of its own.
type script struct {
	cmd      *exec.Cmd
	out, err output
	ended    chan error // gets the error of Wait, once all processes have ended that share its output
}

// startScript runs a script. What it starts inherits stderr, so that its end is seen.
func startScript(t *testing.T, sdk [2]string, name string, args ...string) *script {
	t.Helper()
	s := &script{cmd: exec.Command(sdk[0], append([]string{filepath.Join(sdk[1], name)}, args...)...), ended: make(chan error, 1)}
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.err
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.ended <- s.cmd.Wait() }()
	t.Cleanup(func() { _ = s.cmd.Process.Kill() })
	return s
}

// A pair is a client and a server of the SDK, which talk through mesh mcp and mesh serve. A call is at work.
type pair struct {
	alice  *script
	bob    *exec.Cmd
	said   *output // by bob and the server
	server int     // the id of its process
}

func newPair(t *testing.T, mode string) *pair {
	t.Helper()
	testutil.SkipUnlessFull(t, "the Python SDK of MCP, which takes packages of PyPI")
	sdk, err := pythonSDK()
	if err != nil {
		t.Fatal(err)
	}
	onMesh(t)
	t.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0") // the client waits 2 s for the end of mesh mcp
	var out output
	p := &pair{said: new(output)}
	p.bob = startProcess(t, &out, p.said, "serve", "mcp/files", "--id", "bob", "--", sdk[0], filepath.Join(sdk[1], "server.py"))
	out.wait(t, "at bob:mcp/files")
	// The SDK hands few variables on to the command, and not SIGNALING_URL.
	p.alice = startScript(t, sdk, "client.py", mode, "env", asCommand+"=1", "GORACE="+os.Getenv("GORACE"),
		os.Args[0], "mcp", "bob:files", "--id", "alice", "--signaling", os.Getenv("SIGNALING_URL"))
	p.alice.out.wait(t, "waiting\n")
	p.said.wait(t, "a call was cancelled\n") // the one before
	if p.server, err = strconv.Atoi(p.said.after(t, "server ")); err != nil {
		t.Fatal(err)
	}
	return p
}

// left checks that no process is left, once bob has been asked to end.
func (p *pair) left(t *testing.T) {
	t.Helper()
	gone(t, p.server)
	_ = p.bob.Process.Signal(os.Interrupt)
	ended := make(chan error, 1)
	go func() { ended <- p.bob.Wait() }()
	testutil.Take(t, "the end of all that write to the output of mesh serve", ended)
}

// A client and a server of the Python SDK of MCP talk, until something happens in the middle of a call. Then it fails at once,
// and no process is left.
func TestPythonSDK(t *testing.T) {
	for _, tc := range []struct {
		name, mode string
		end        func(p *pair) error
		says       string // on stderr, by mesh mcp or bob
	}{
		{"server is killed", "auto", func(p *pair) error { return syscall.Kill(p.server, syscall.SIGKILL) }, "the program for alice has ended: signal: killed"},
		{"peer is interrupted", "legacy", func(p *pair) error { return p.bob.Process.Signal(os.Interrupt) }, "mesh mcp: bob:mcp/files: the stream was reset: the peer has given the stream up"},
		{"peer is killed", "auto", func(p *pair) error { return p.bob.Process.Kill() }, "mesh mcp: bob:mcp/files: the peer is gone"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPair(t, tc.mode)
			began := time.Now()
			if err := tc.end(p); err != nil {
				t.Fatal(err)
			}
			p.alice.out.wait(t, "failed: ")
			if took := time.Since(began); took > atOnce {
				t.Errorf("the call has failed after %v", took)
			}
			if err := testutil.Take(t, "the end of the client and of mesh mcp", p.alice.ended); err != nil {
				t.Error(err)
			}
			want := "tools: read wait\nLICENSE for alice\ncancelled\nLICENSE for alice\nwaiting\nfailed: Connection closed\nclosed\n"
			if got := p.alice.out.String(); got != want {
				t.Errorf("the client has printed\n%s, want\n%s", got, want)
			}
			p.left(t)
			if says := p.alice.err.String() + p.said.String(); !strings.Contains(says, tc.says) {
				t.Errorf("%q is not in\n%s", tc.says, says)
			}
		})
	}
}

// A client that is killed takes mesh mcp and the server along, though the server is at work.
func TestPythonClientKilled(t *testing.T) {
	p := newPair(t, "auto")
	if err := p.alice.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	testutil.Take(t, "the end of mesh mcp", p.alice.ended)
	p.left(t)
	if n := strings.Count(p.said.String(), "a call was cancelled\n"); n != 2 {
		t.Errorf("%d calls were cancelled\n%s", n, p.said)
	}
}
