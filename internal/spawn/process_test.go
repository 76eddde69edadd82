//go:build linux || darwin

package spawn

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

func start(t *testing.T, name string, arg ...string) *Process {
	t.Helper()
	p, err := Start(exec.Command(name, arg...), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// over is a context that has ended: no grace.
func over() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestEnd(t *testing.T) {
	for name, tc := range map[string]struct {
		script         string
		stop           bool
		status, stderr string
		failed, killed bool
	}{
		"by itself":       {script: "echo bye >&2", status: "exit status 0", stderr: "bye"},
		"status":          {script: "echo boom >&2; exit 3", status: "exit status 3", stderr: "boom", failed: true},
		"signal":          {script: "kill -TERM $$", status: "signal: terminated", failed: true},
		"stopped":         {script: "exec sleep 60", stop: true, status: "signal: terminated"},
		"stopped, killed": {script: `trap "" TERM; echo no >&2; while :; do sleep 60; done`, stop: true, status: "signal: killed", stderr: "no", failed: true, killed: true},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, "sh", "-c", tc.script)
			if tc.killed {
				testutil.Eventually(t, "it ignores SIGTERM, and says so", func() bool { return p.Stderr() != "" })
			}
			if tc.stop {
				p.Stop(over())
				p.Stop(over())
			}
			e := p.End()
			if e.Status != tc.status || e.Stderr != tc.stderr || (e.Err != nil) != tc.failed || e.Killed != tc.killed {
				t.Errorf("got %+v", e)
			}
		})
	}
}

// A child is told of the end of its parent by the end of its stdin, and leads a process group of its own, so that
// Ctrl-C does not reach it.
func TestStart(t *testing.T) {
	p := start(t, "cat")
	if group, err := syscall.Getpgid(p.PID()); group != p.PID() {
		t.Errorf("process group %d, %v", group, err)
	}
	if err := p.cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Error(err)
	}
	p.Stop(over())
	if _, err := Start(exec.Command("/no/such/program"), zerolog.Nop()); err == nil {
		t.Error("started")
	}
}

// Grandchildren that keep stderr open do not keep Stop waiting.
func TestStopWithGrandchild(t *testing.T) {
	p := start(t, "sh", "-c", "sleep 60 & echo $! >&2")
	p.Stop(context.Background())
	e := p.End()
	if e.Err != nil {
		t.Error(e.Err)
	}
	grandchild, err := strconv.Atoi(strings.TrimSpace(e.Stderr))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(grandchild, syscall.SIGKILL); err != nil {
		t.Errorf("the grandchild is gone, so it held nothing open: %v", err)
	}
}

// A process that writes without end does not fill the log; the end of what it wrote is kept.
func TestStderrIsSampled(t *testing.T) {
	var log testutil.LogBuffer
	p, err := Start(exec.Command("sh", "-c", "yes again | head -n 50000 >&2; echo last >&2"), zerolog.New(&log))
	if err != nil {
		t.Fatal(err)
	}
	if e := p.End(); !strings.HasSuffix(e.Stderr, "\nlast") {
		t.Errorf("kept %.100q", e.Stderr)
	}
	if n := log.Count("again"); n == 0 || n > 50_000/4 {
		t.Errorf("%d lines are logged", n)
	}
}
