//go:build linux

package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/chatixia-ai/mesh"
)

// jobEnv holds the job of a copy of this program that is an agent in a process of its own.
const jobEnv = "MESH_FAULTS_AGENT"

// A job is what such an agent is to do.
type job struct {
	URL, ID string
	Mode    mesh.Mode
	Flows   []string // peers to which it sends as fast as it can
	Count   int      // how many messages to each, 0 for no end
	Relay   bool     // RelayOnly

	Every    time.Duration // a message of a flow, if not as fast as Send takes them
	Recovery time.Duration // RecoveryTimeout, if not the default
	Key      string        // APIKey, if it is not the ID
}

// A state is what it says about itself.
type state struct {
	Sidecar     int // its process id, 0 if there is none
	From        map[string]tally
	Losses      int // of peers
	Most        int // bytes of memory that agent and sidecar have had at most, each
	SidecarMost int
}

// agentMain is such an agent and returns true. In any other process it returns false at once.
func agentMain() bool {
	raw := os.Getenv(jobEnv)
	if raw == "" {
		return false
	}
	var j job
	err := json.Unmarshal([]byte(raw), &j)
	if err == nil {
		err = j.work(os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
	return true
}

// work is on the mesh until the end of in. For each line of it, and at the beginning, it says its state.
func (j job) work(in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	a, err := newAgent(ctx, j.URL, j.ID, inMode(j.Mode), func(cfg *mesh.Config) {
		cfg.APIKey, cfg.Network.RelayOnly, cfg.Network.RecoveryTimeout = cmp.Or(j.Key, j.ID), j.Relay, j.Recovery
	})
	if err != nil {
		return err
	}
	for _, peer := range j.Flows {
		if err := a.reach(ctx, peer); err != nil {
			return err
		}
		a.flow(ctx, peer, 200, j.Count, j.Every)
	}
	say := json.NewEncoder(out)
	lines := bufio.NewScanner(in)
	for more := true; more; more = lines.Scan() {
		s := state{Sidecar: a.SidecarPID(), From: make(map[string]tally), Losses: a.losses()}
		a.sink.mu.Lock()
		for id, t := range a.sink.from {
			s.From[id] = *t
		}
		a.sink.mu.Unlock()
		_, s.Most = resident(os.Getpid())
		_, s.SidecarMost = resident(s.Sidecar)
		if err := say.Encode(s); err != nil {
			return err
		}
	}
	cancel()
	return a.Close()
}

// A child is an agent in a process of its own.
type child struct {
	r       *run
	id      string
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	sidecar int
	ended   bool
}

// spawn starts an agent in a process of its own, which is on the mesh when spawn returns.
func (r *run) spawn(j job) *child {
	c := r.launch(j, (*exec.Cmd).Start)
	c.sidecar = c.read().Sidecar
	return c
}

// launch starts an agent in a process of its own, which says its state once it is on the mesh.
func (r *run) launch(j job, start func(*exec.Cmd) error) *child {
	raw, err := json.Marshal(j)
	r.stop("job", err)
	c := &child{r: r, id: j.ID, cmd: exec.Command("/proc/self/exe")}
	c.cmd.Env = append(os.Environ(), jobEnv+"="+string(raw))
	c.cmd.Stderr = os.Stderr
	c.in, err = c.cmd.StdinPipe()
	r.stop("pipe", err)
	out, err := c.cmd.StdoutPipe()
	r.stop("pipe", err)
	r.stop("start of a process", start(c.cmd))
	c.out = bufio.NewReader(out)
	r.later(c.leave)
	return c
}

// read takes the next state that it says.
func (c *child) read() (s state) {
	timer := time.AfterFunc(patience, func() { _ = c.cmd.Process.Kill() })
	defer timer.Stop()
	line, err := c.out.ReadString('\n')
	c.r.stop("the agent "+c.id, err)
	c.r.stop("the agent "+c.id, json.Unmarshal([]byte(line), &s))
	return s
}

// state asks for its state.
func (c *child) state() state {
	_, err := io.WriteString(c.in, "\n")
	c.r.stop("the agent "+c.id, err)
	return c.read()
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// kill ends it by SIGKILL. Its sidecar, if it has one, is on its own.
func (c *child) kill() {
	c.ended = true
	c.r.stop("kill", c.cmd.Process.Kill())
	_ = c.cmd.Wait()
}

// leave has it close its mesh.
func (c *child) leave() {
	if c.ended {
		return
	}
	c.ended = true
	_ = c.in.Close()
	timer := time.AfterFunc(patience, func() { _ = c.cmd.Process.Kill() })
	defer timer.Stop()
	if err := c.cmd.Wait(); err != nil {
		c.r.check(false, "the agent %s ended with %v", c.id, err)
	}
}

// freeze has a process stand still: when it returns, each of its threads does.
func (r *run) freeze(pid int) {
	r.stop("SIGSTOP", syscall.Kill(pid, syscall.SIGSTOP))
	r.until("all threads stand still", func() bool {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		return !slices.ContainsFunc(threads, func(stat string) bool { return status(stat) != 'T' })
	})
}

// thaw lets a process go on.
func (r *run) thaw(pid int) { r.stop("SIGCONT", syscall.Kill(pid, syscall.SIGCONT)) }
