package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/signaling"
)

// limit bounds what a test waits for, on a busy machine.
const limit = 30 * time.Second

const asCommand = "MESH_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	status, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(status)
}

// sources is the directory of this package, programs one for what the tests build.
var sources, programs string

func runTests(m *testing.M) (status int, err error) {
	if sources, err = os.Getwd(); err != nil {
		return 1, err
	}
	if programs, err = os.MkdirTemp("", "mesh-test"); err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(programs) }()
	return m.Run(), nil
}

// onMesh makes a test run in an empty directory, with a signaling server of its own.
func onMesh(t *testing.T) {
	t.Helper()
	inTemp(t)
	server, err := signaling.New(signaling.Config{Dev: true})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(server)
	t.Cleanup(func() {
		_ = server.Close()
		web.Close()
	})
	t.Setenv("SIGNALING_URL", strings.Replace(web.URL, "http", "ws", 1)+"/ws")
	t.Setenv("API_KEY", "")
}

// output is what a command writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// wait blocks until the output has a text.
func (o *output) wait(t *testing.T, text string) {
	t.Helper()
	testutil.Eventually(t, fmt.Sprintf("%q in the output", text), func() bool { return strings.Contains(o.String(), text) })
}

// A running command.
type running struct {
	out, err output
	in       io.WriteCloser
	cancel   context.CancelCauseFunc
	status   chan int
}

// start begins a command in this process.
func start(t *testing.T, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	r, w := io.Pipe()
	p := &running{in: w, cancel: cancel, status: make(chan int, 1)}
	go func() { p.status <- run(ctx, args, r, &p.out, &p.err) }()
	t.Cleanup(func() {
		cancel(signalError{syscall.SIGINT})
		_ = w.Close()
		select {
		case <-p.status:
		case <-time.After(limit):
			t.Errorf("%q does not end", args)
		}
	})
	return p
}

// ends blocks until the command has ended, and checks how.
func (p *running) ends(t *testing.T, status int, words ...string) {
	t.Helper()
	select {
	case got := <-p.status:
		p.status <- got // for the cleanup
		result{p.out.String(), p.err.String(), got}.hasStatus(t, status, words...)
	case <-time.After(limit):
		t.Fatalf("still running\n%s%s", &p.out, &p.err)
	}
}

// hasStatus is want, where a success may have said something on stderr.
func (r result) hasStatus(t *testing.T, status int, words ...string) {
	t.Helper()
	if r.status != status {
		t.Fatalf("status %d, want %d\n%s%s", r.status, status, r.out, r.err)
	}
	for _, w := range words {
		if !strings.Contains(r.out+r.err, w) {
			t.Errorf("%q is not in\n%s%s", w, r.out, r.err)
		}
	}
}

// interrupt is what SIGINT does.
func (p *running) interrupt() { p.cancel(signalError{syscall.SIGINT}) }

// startProcess begins a command in a process of its own.
func startProcess(t *testing.T, out, errs io.Writer, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	cmd.Stdout, cmd.Stderr = out, errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd
}

// joined returns an agent on the mesh, made with the library.
func joined(t *testing.T, id string, cfg mesh.Config) *mesh.Mesh {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cfg.APIKey, cfg.WaitSignaling = id, true
	m, err := mesh.New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// after returns the rest of the line in which a text is, behind it.
func (o *output) after(t *testing.T, text string) string {
	t.Helper()
	o.wait(t, text)
	_, rest, _ := strings.Cut(o.String(), text)
	line, _ := bufio.NewReader(strings.NewReader(rest)).ReadString('\n')
	return strings.Fields(line)[0]
}
