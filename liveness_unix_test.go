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
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/sidecar"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// hasty is a liveness for tests.
var hasty = liveness{every: 50 * time.Millisecond, tick: 100 * time.Millisecond, ticks: 15}

// startWith starts a mesh whose sidecars have a liveness.
func startWith(ctx context.Context, cfg Config, l liveness) (*Mesh, error) {
	return newMesh(ctx, cfg, func(ctx context.Context, cfg *Config, set sidecar.Settings) (*launched, error) {
		side, err := launch(ctx, cfg, set)
		if err == nil {
			side.liveness = l
		}
		return side, err
	})
}

// A sidecar process that stands still is killed and replaced, and the reason is reported.
func TestSidecarHangs(t *testing.T) {
	t.Parallel()
	var reports testutil.Record[error]
	cfg := alone(SelfExec)
	cfg.OnError = reports.Add
	m, err := startWith(bounded(t), cfg, hasty)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	pid := m.SidecarPID()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	all := reports.Wait(t, "the report", func(all []error) bool { return len(all) > 0 })
	if err := all[0]; !errors.Is(err, ErrSidecarHung) || !errors.Is(err, ErrSidecarLost) ||
		!strings.Contains(err.Error(), "killed") || !strings.Contains(err.Error(), strconv.Itoa(pid)) {
		t.Errorf("reported %v", err)
	}
	testutil.Eventually(t, "another sidecar", func() bool { return m.SidecarPID() != 0 && m.SidecarPID() != pid })
	if running(pid) {
		t.Error("the first sidecar still runs")
	}
}

// The link to an attached sidecar that stands still is ended with that reason; the sidecar is not ours to kill.
func TestAttachedSidecarHangs(t *testing.T) {
	t.Parallel()
	socket := socketPath(t)
	cmd := exec.Command(buildSidecar(t), "-socket", socket, "-no-stun")
	cmd.Env = append(os.Environ(), "SIGNALING_URL=ws://127.0.0.1:1/ws")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	var reports testutil.Record[error]
	cfg := alone(Attach)
	cfg.Socket, cfg.OnError = socket, reports.Add
	m, err := startWith(bounded(t), cfg, hasty)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	all := reports.Wait(t, "the report", func(all []error) bool { return len(all) > 0 })
	if err := all[0]; !errors.Is(err, ErrSidecarHung) || !errors.Is(err, ErrSidecarLost) {
		t.Errorf("reported %v", err)
	}
	if !running(cmd.Process.Pid) {
		t.Error("the sidecar was ended")
	}
}

// helperHasty is an agent with a hasty liveness, which prints the pid of its sidecar, and what it reports.
func helperHasty() {
	_ = os.Unsetenv(helperEnv) // the sidecar is to be one
	ctx, cancel := context.WithTimeout(context.Background(), helperLife)
	defer cancel()
	cfg := alone(SelfExec)
	cfg.OnError = func(err error) { fmt.Println("reported:", err) }
	m, err := startWith(ctx, cfg, hasty)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.SidecarPID())
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends
	fmt.Println(m.SidecarPID(), m.Close())
}

// When agent and sidecar stand still together, for longer than a sidecar may, as when a laptop sleeps, nothing ends.
func TestBothStandStill(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	agent := exec.Command(self)
	agent.Env = append(os.Environ(), helperEnv+"=hasty")
	agent.Stderr = os.Stderr
	in, err := agent.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = agent.Process.Kill() })
	lines := bufio.NewReader(out)
	first, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		t.Fatalf("the agent says %q", first)
	}
	for range 3 {
		for _, step := range []struct {
			pid  int
			sig  syscall.Signal
			then time.Duration
		}{
			{pid, syscall.SIGSTOP, 4 * hasty.every}, // a ping goes out that has no response
			{agent.Process.Pid, syscall.SIGSTOP, 2 * time.Duration(hasty.ticks) * hasty.tick},
			{pid, syscall.SIGCONT, 0},
			{agent.Process.Pid, syscall.SIGCONT, 0},
		} {
			if err := syscall.Kill(step.pid, step.sig); err != nil {
				t.Fatal(err)
			}
			<-time.After(step.then)
		}
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(lines)
	if want := fmt.Sprintln(pid, nil); err != nil || string(rest) != want {
		t.Errorf("the agent said %q, %v; want %q", rest, err, want)
	}
	if err := agent.Wait(); err != nil {
		t.Error(err)
	}
}
