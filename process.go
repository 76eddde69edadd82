package mesh

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

const (
	// pipeGrace is how long the stderr of a process that ended may be held open
	// by processes that it started.
	pipeGrace = 500 * time.Millisecond
	// stderrKept is how much of its end is kept for error messages.
	stderrKept = 8 << 10
	// stderrLine is where a line is cut that does not end.
	stderrLine = 8 << 10
)

// A process is one spawned sidecar. Signals go through os.Process, which knows
// whether the process has been waited for, never to a bare pid.
type process struct {
	cmd    *exec.Cmd
	stderr *stderrTail
	done   chan struct{} // closed when it has ended and its stderr is read
	err    error         // of cmd.Wait; written before done is closed

	stopping   sync.Once
	terminated atomic.Bool // by stop's SIGTERM
	killed     atomic.Bool // by stop's SIGKILL
}

// startProcess starts cmd with stdout at /dev/null, so that it cannot write into
// the agent's output. Lines of its stderr go to log. Its stdin is a pipe that
// ends with this process: see stdinClosed.
//
// Not exec.CommandContext: the context would bound the whole life of the
// process.
func startProcess(cmd *exec.Cmd, log zerolog.Logger) (*process, error) {
	p := &process{cmd: cmd, stderr: &stderrTail{}, done: make(chan struct{})}
	cmd.Stderr = p.stderr // os/exec reads the pipe to its end before Wait returns
	cmd.WaitDelay = pipeGrace
	cmd.SysProcAttr = ownGroup()
	if _, err := cmd.StdinPipe(); err != nil { // closed by Wait
		return nil, err
	}
	// No output is lost by this order: the first write takes the lock.
	p.stderr.mu.Lock()
	err := cmd.Start()
	if err != nil {
		p.stderr.mu.Unlock()
		return nil, err
	}
	p.stderr.log = log.With().Int("pid", cmd.Process.Pid).Logger()
	p.stderr.mu.Unlock()
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
		p.stderr.flush()
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop waits until the process has ended by itself, as it does when its agent
// hangs up, and makes it end when ctx or eofGrace is over. It waits for
// everything that startProcess began.
func (p *process) stop(ctx context.Context) {
	p.stopping.Do(func() {
		if waitUntil(ctx, p.done, eofGrace) {
			return
		}
		p.terminated.Store(p.cmd.Process.Signal(syscall.SIGTERM) == nil)
		if waitUntil(context.Background(), p.done, termGrace) {
			return
		}
		p.killed.Store(p.cmd.Process.Kill() == nil)
		<-p.done
	})
}

// status says how the process ended, once it has.
func (p *process) status() string { return p.cmd.ProcessState.String() }

// diagnose returns what was wrong with the end of the process, once it has
// ended. It is asked only after an end that was not expected.
func (p *process) diagnose(m Mode, path string) error {
	err := p.err
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		// SidecarMain cannot set a status, so what it says is all there is.
		_, said, failed := strings.Cut(p.stderr.String(), failedPrefix)
		if !failed {
			return nil
		}
		said, _, _ = strings.Cut(said, "\n")
		return fmt.Errorf("mesh: the sidecar (mode %v, %s, pid %d) ended: %s", m, path, p.pid(), said)
	case p.killed.Load():
		err = fmt.Errorf("it ignored the end of its link and SIGTERM, and was killed (%w)", err)
	case p.terminated.Load() && errors.As(err, &exit) && signaled(exit.ProcessState, syscall.SIGTERM):
		return nil // it was asked to, and does not handle the signal
	}
	err = fmt.Errorf("mesh: the sidecar (mode %v, %s, pid %d) ended: %w", m, path, p.pid(), err)
	if tail := p.stderr.String(); tail != "" {
		err = fmt.Errorf("%w\nits stderr ended with:\n%s", err, tail)
	}
	return err
}

// A stderrTail keeps the end of what a process writes to its stderr and passes
// every line on to a logger.
type stderrTail struct {
	mu   sync.Mutex
	log  zerolog.Logger
	kept []byte // the last stderrKept bytes, and up to as much again
	line []byte // the part of a line that has come so far
}

// Write never fails: the process must not notice who reads.
func (t *stderrTail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, b...)
	if over := len(t.kept) - stderrKept; over > stderrKept {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	for rest := b; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte{'\n'})
		if n := stderrLine - len(t.line); len(line) > n {
			line, after, ended = rest[:n], rest[n:], true
		}
		t.line = append(t.line, line...)
		rest = after
		if ended {
			t.forward()
		}
	}
	return len(b), nil
}

// flush passes on a last line that has no end.
func (t *stderrTail) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forward()
}

// forward logs one line: the record of a zerolog logger, which is what our own
// sidecar writes, as it is, and anything else as text.
func (t *stderrTail) forward() {
	line := bytes.TrimSpace(t.line)
	t.line = t.line[:0]
	if len(line) == 0 {
		return
	}
	var record map[string]any
	if line[0] != '{' || json.Unmarshal(line, &record) != nil {
		t.log.Info().Msg(string(line))
		return
	}
	text, _ := record[zerolog.LevelFieldName].(string)
	level, err := zerolog.ParseLevel(text)
	if err != nil || text == "" {
		level = zerolog.InfoLevel
	}
	msg, _ := record[zerolog.MessageFieldName].(string)
	for _, k := range []string{zerolog.LevelFieldName, zerolog.MessageFieldName, zerolog.TimestampFieldName, "sidecar", "pid"} {
		delete(record, k) // the logger has its own
	}
	t.log.WithLevel(level).Fields(record).Msg(msg)
}

// String returns the last lines.
func (t *stderrTail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	kept := t.kept
	if over := len(kept) - stderrKept; over > 0 {
		kept = kept[over:]
		if i := bytes.IndexByte(kept, '\n'); i >= 0 {
			kept = kept[i+1:] // not half a line
		}
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(kept), "\uFFFD"))
}
