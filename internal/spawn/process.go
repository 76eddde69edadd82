// Package spawn starts a child process, logs its stderr, stops it, and reports how it ended; the child has
// the counterparts, [Signals] and [StdinClosed].
package spawn

import (
	"context"
	"errors"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

const (
	// Stop gives a process eofGrace to end by itself, termGrace after SIGTERM, and pipeGrace after SIGKILL.
	eofGrace  = 2 * time.Second
	termGrace = 500 * time.Millisecond
	// pipeGrace is how long the stderr of a process that ended may be held open by processes that it
	// started.
	pipeGrace = 500 * time.Millisecond
)

// A Process is a child process. Signals go through os.Process, which knows whether the process has been
// waited for, never to a bare pid.
type Process struct {
	cmd    *exec.Cmd
	stderr *stderrTail
	done   chan struct{} // closed when it has ended and its stderr is read
	err    error         // of cmd.Wait; valid after done

	stopping   sync.Once
	terminated atomic.Bool // by Stop's SIGTERM
	killed     atomic.Bool // by Stop's SIGKILL
}

// Start starts cmd, whose environment is cmd.Env, with stdout at /dev/null, so that it cannot write into
// the output of this process, and in a process group of its own. Lines of its stderr go to log. Its stdin
// is a pipe that ends with this process: see [StdinClosed].
//
// It is not bound to a context: that would bound the whole life of the process.
func Start(cmd *exec.Cmd, log zerolog.Logger) (*Process, error) {
	p := &Process{cmd: cmd, stderr: &stderrTail{}, done: make(chan struct{})}
	cmd.Stderr = p.stderr // os/exec reads the pipe to its end before Wait returns
	cmd.WaitDelay = pipeGrace
	cmd.SysProcAttr = ownGroup()
	if _, err := cmd.StdinPipe(); err != nil { // closed by Wait
		return nil, err
	}
	// The log has the pid, which is not known before Start: until then a write blocks on the lock.
	p.stderr.mu.Lock()
	err := cmd.Start()
	if err != nil {
		p.stderr.mu.Unlock()
		return nil, err
	}
	p.stderr.log = log.With().Int("pid", cmd.Process.Pid).Logger().
		Sample(&zerolog.BurstSampler{Burst: stderrRate, Period: time.Second})
	p.stderr.mu.Unlock()
	go func() { // Stop and Done wait for it
		defer close(p.done)
		p.err = cmd.Wait()
		p.stderr.flush()
	}()
	return p, nil
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done returns a channel that is closed when the process has ended and its stderr is read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Stderr returns the last lines of its stderr so far.
func (p *Process) Stderr() string { return p.stderr.String() }

// Stop blocks until the process has ended by itself, and makes it end when ctx or a grace of 2 s is over:
// by SIGTERM, and after 0.5 s more by SIGKILL. It returns when everything that Start began has ended. It may
// be called any number of times, from any goroutine; the ctx of the first call counts.
func (p *Process) Stop(ctx context.Context) {
	p.stopping.Do(func() {
		if wait(ctx, p.done, eofGrace) {
			return
		}
		p.terminated.Store(p.cmd.Process.Signal(syscall.SIGTERM) == nil)
		if wait(context.Background(), p.done, termGrace) {
			return
		}
		p.killed.Store(p.cmd.Process.Kill() == nil)
		<-p.done
	})
}

// wait blocks until done is closed, which it reports, or ctx ends or d has passed.
func wait(ctx context.Context, done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-ctx.Done():
	case <-timer.C:
	}
	return false
}

// An End is how a process ended.
type End struct {
	Status string // such as "exit status 1"
	Stderr string // its last lines
	// Err is nil after exit status 0, and after a SIGTERM of Stop that ended the process.
	Err    error
	Killed bool // by Stop, after SIGTERM had not ended it
}

// End blocks until the process has ended and returns how.
func (p *Process) End() End {
	<-p.done
	e := End{Status: p.cmd.ProcessState.String(), Stderr: p.stderr.String(), Err: p.err, Killed: p.killed.Load()}
	var exit *exec.ExitError
	switch {
	case errors.Is(p.err, exec.ErrWaitDelay): // only its stderr was held open
		e.Err = nil
	case !e.Killed && p.terminated.Load() && errors.As(p.err, &exit) && signaled(exit.ProcessState, syscall.SIGTERM):
		e.Err = nil
	}
	return e
}
