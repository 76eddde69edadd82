//go:build linux || darwin

package interop

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// A scriptParty is one of the example agents in other languages.
type scriptParty struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	lines  *transcript
	logged *testutil.LogBuffer
	done   chan error

	endOnce sync.Once
	endErr  error
}

// startScript is an example agent, which starts the sidecar itself.
func startScript(interpreter, script string, flags ...string) func(*testing.T, *stage, string) console {
	return func(t *testing.T, st *stage, id string) console {
		t.Helper()
		return runAgent(t, st.environ(id), id, interpreter, script, flags...)
	}
}

// runAgent runs an example agent with a sidecar of its own, both in an environment.
func runAgent(t *testing.T, environ []string, id, interpreter, script string, flags ...string) *scriptParty {
	t.Helper()
	args := append([]string{"--sidecar", theSidecar(t), "--verbose"}, flags...)
	return runScript(t, environ, interpreter, script, append(args, id)...)
}

// runScript runs an example agent. A nil environment is that of the tests.
func runScript(t *testing.T, environ []string, interpreter, script string, args ...string) *scriptParty {
	t.Helper()
	cmd := exec.Command(interpreter, append([]string{filepath.Join(root, "examples", script)}, args...)...)
	cmd.Env = environ
	s := &scriptParty{cmd: cmd, lines: newTranscript(), logged: new(testutil.LogBuffer), done: make(chan error, 1)}
	cmd.Stderr = s.logged
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.stdin = stdin
	go func() {
		scan := bufio.NewScanner(stdout)
		scan.Buffer(nil, 32<<20)
		for scan.Scan() {
			s.lines.add(scan.Text())
		}
		s.done <- errors.Join(scan.Err(), cmd.Wait())
	}()
	t.Cleanup(func() { _ = s.quit() })
	return s
}

func (s *scriptParty) say(line string) error {
	_, err := io.WriteString(s.stdin, line+"\n")
	return err
}

func (s *scriptParty) said() *transcript { return s.lines }

func (s *scriptParty) log() string { return s.logged.String() }

// kill ends it as a crash would; its sidecar notices.
func (s *scriptParty) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.ends()
}

func (s *scriptParty) quit() error {
	_ = s.say("quit") // it may have ended already
	_ = s.stdin.Close()
	return s.ends()
}

// ends blocks until the agent has ended, and returns how.
func (s *scriptParty) ends() error {
	s.endOnce.Do(func() {
		select {
		case s.endErr = <-s.done:
		case <-time.After(patience):
			_ = s.cmd.Process.Kill()
			s.endErr = fmt.Errorf("still running after %s: %w", patience, <-s.done)
		}
	})
	return s.endErr
}
