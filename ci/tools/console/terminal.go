package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// maxOutput bounds a terminal's output in bytes; to print more is an error.
	maxOutput = 8 << 20
	// shownLines is the number of lines of output in an error.
	shownLines  = 60
	typeTimeout = 10 * time.Second
)

// terminal is a bash with pipes, in its own session.
type terminal struct {
	cmd    *exec.Cmd
	stdin  *os.File
	stdout *os.File // and stderr
	token  string   // starts the line that the shell prints after each command
	read   chan struct{}

	typed  int // commands
	pos    int // lines[:pos] are matched or skipped
	answer int // index of the line after the last input, which may start with a prompt

	mu      sync.Mutex
	lines   []string // without blank ones
	partial []byte   // the last line, without its end
	size    int
	ended   []int // exit status of each command that has exited
	closed  bool  // there is no more output
	change  chan struct{}
}

func startTerminal(dir string, env []string) (*terminal, error) {
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, inR.Close(), inW.Close())
	}
	t := &terminal{
		cmd: exec.Command("bash", "--noprofile", "--norc"), stdin: inW, stdout: outR,
		token: "ended-" + rand.Text(), answer: -1, read: make(chan struct{}), change: make(chan struct{}),
	}
	t.cmd.Dir, t.cmd.Env = dir, env
	t.cmd.Stdin, t.cmd.Stdout, t.cmd.Stderr = inR, outW, outW
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = t.cmd.Start()
	err = errors.Join(err, inR.Close(), outW.Close())
	if err != nil {
		return nil, errors.Join(err, inW.Close(), outR.Close())
	}
	go t.collect()
	return t, nil
}

// collect reads the output to its end.
func (t *terminal) collect() {
	defer close(t.read)
	buf := make([]byte, 32<<10)
	for {
		n, err := t.stdout.Read(buf)
		t.update(func() {
			t.add(buf[:n])
			t.closed = err != nil || t.size > maxOutput
		})
		if t.closed {
			return
		}
	}
}

func (t *terminal) update(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
	close(t.change)
	t.change = make(chan struct{})
}

func (t *terminal) add(b []byte) {
	t.size += len(b)
	for {
		line, rest, ok := bytes.Cut(b, []byte("\n"))
		t.partial = append(t.partial, line...)
		if !ok {
			return
		}
		t.endLine()
		b = rest
	}
}

func (t *terminal) endLine() {
	line := strings.TrimRight(string(t.partial), " \t\r")
	t.partial = t.partial[:0]
	if status, ok := strings.CutPrefix(line, t.token+" "); ok {
		n, _ := strconv.Atoi(status)
		t.ended = append(t.ended, n)
		return
	}
	if line != "" {
		t.lines = append(t.lines, line)
	}
}

// run types a command. The braces make the shell read the command and the printf after it before it starts
// the command, so that the command gets all later input.
func (t *terminal) run(cmd string) error {
	t.typed++
	return t.write("{ " + cmd + "\n}; printf '\\n%s %d\\n' " + t.token + " $?\n")
}

// enter types a line into the running program. As on a real terminal, it also ends the line of a prompt. A
// prompt that is printed later is at the start of the program's next line.
func (t *terminal) enter(line string) error {
	t.update(func() {
		t.endLine()
		t.answer = len(t.lines)
	})
	return t.write(line + "\n")
}

// quiet reports whether no command runs, so that the shell itself would get the input.
func (t *terminal) quiet() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.ended) == t.typed
}

func (t *terminal) write(s string) error {
	if err := t.stdin.SetWriteDeadline(time.Now().Add(typeTimeout)); err != nil {
		return err
	}
	if _, err := t.stdin.WriteString(s); err != nil {
		return fmt.Errorf("the input is not read: %w", err)
	}
	return nil
}

// expect blocks until a line of output matches. It fails when the command has exited, unless something may
// still run in the background.
func (t *terminal) expect(ctx context.Context, want step, background bool) error {
	return t.wait(ctx, func() (bool, error) {
		for ; t.pos < len(t.lines); t.pos++ {
			line := t.lines[t.pos]
			if want.line.MatchString(line) || t.pos == t.answer && want.prompted.MatchString(line) {
				t.pos++
				return true, nil
			}
		}
		if len(t.ended) == t.typed && !background {
			return false, fmt.Errorf("its command has exited with status %d", t.ended[t.typed-1])
		}
		return false, nil
	})
}

// idle blocks until the last command has exited, and fails if it has failed.
func (t *terminal) idle(ctx context.Context) error {
	return t.wait(ctx, func() (bool, error) {
		if len(t.ended) < t.typed {
			return false, nil
		}
		if n := len(t.ended); n > 0 && t.ended[n-1] != 0 {
			return false, fmt.Errorf("its command has exited with status %d", t.ended[n-1])
		}
		return true, nil
	})
}

// wait calls check, with the lock held, after each change until it is done or fails.
func (t *terminal) wait(ctx context.Context, check func() (bool, error)) error {
	for {
		t.mu.Lock()
		done, err := check()
		closed, flooded, change := t.closed, t.size > maxOutput, t.change
		t.mu.Unlock()
		switch {
		case done || err != nil:
			return err
		case flooded:
			return fmt.Errorf("it prints more than %d bytes", maxOutput)
		case closed:
			return errors.New("its shell has exited")
		}
		select {
		case <-change:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// output returns the last lines of output, for an error.
func (t *terminal) output() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := t.lines
	if len(t.partial) > 0 {
		lines = append(lines[:len(lines):len(lines)], string(t.partial))
	}
	if len(lines) == 0 {
		return "(nothing)\n"
	}
	dropped := ""
	if n := len(lines) - shownLines; n > 0 {
		dropped, lines = fmt.Sprintf("(%d lines omitted)\n", n), lines[n:]
	}
	return dropped + strings.Join(lines, "\n") + "\n"
}

// terminate sends SIGTERM to the terminal's process group.
func (t *terminal) terminate() { _ = syscall.Kill(-t.cmd.Process.Pid, syscall.SIGTERM) }

// end blocks until all processes of the terminal have exited. When ctx ends it kills and returns those that
// still run.
func (t *terminal) end(ctx context.Context) (leftover []string) {
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		_ = t.cmd.Wait() // the shell was terminated: its status means nothing
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil && len(t.processes()) > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	for pid, name := range t.processes() {
		leftover = append(leftover, fmt.Sprintf("process %d: %s", pid, name))
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = syscall.Kill(-t.cmd.Process.Pid, syscall.SIGKILL) // where there is no /proc
	<-waited
	_ = t.stdin.Close()
	_ = t.stdout.Close() // a process outside of the session may still hold the other end
	<-t.read
	return leftover
}

// processes lists the live processes of the terminal's session. Without /proc it only finds out whether the
// process group has any.
func (t *terminal) processes() map[int]string {
	found := make(map[int]string)
	session := t.cmd.Process.Pid
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has exited meanwhile
		}
		// "pid (name) state ppid pgrp session ...", where the name may contain any characters.
		head, tail, _ := strings.Cut(string(b), " (")
		end := strings.LastIndex(tail, ") ")
		if end < 0 {
			continue
		}
		fields := strings.Fields(tail[end+2:])
		pid, err := strconv.Atoi(head)
		if err == nil && len(fields) > 3 && fields[3] == strconv.Itoa(session) && fields[0] != "Z" {
			found[pid] = tail[:end]
		}
	}
	if len(stats) == 0 && syscall.Kill(-session, 0) == nil {
		found[session] = "in the terminal's process group"
	}
	return found
}
