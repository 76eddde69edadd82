//go:build linux || darwin

package spawn

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// childEnv makes the test binary act as a child: the name of one of children.
const childEnv = "MESH_TEST_CHILD"

var children = map[string]func(){
	// Once it is told to, it writes to stderr, and then waits for a signal.
	"signals": func() {
		ctx, stop := Signals(context.Background())
		defer stop()
		fmt.Println("ready")
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		_, err := fmt.Fprintln(os.Stderr, "is anybody there?")
		fmt.Println("alone:", err != nil)
		<-ctx.Done()
		fmt.Println("stopped")
	},
	"stdin": func() {
		closed := StdinClosed()
		select {
		case <-closed:
			fmt.Println("orphaned at once")
		default:
			fmt.Println("ready")
		}
		<-closed
		fmt.Println("orphaned")
	},
}

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		children[name]()
		return
	}
	goleak.VerifyTestMain(m)
}

// A child is the test binary in another role.
type child struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
}

// startChild starts a child whose stderr is a pipe without a reader.
func startChild(t *testing.T, name string) *child {
	t.Helper()
	c := &child{t: t, cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), childEnv+"="+name, "GORACE=atexit_sleep_ms=0")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.cmd.Stderr = w
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdout = bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hung := time.AfterFunc(testutil.Patience, func() { _ = c.cmd.Process.Kill() })
	t.Cleanup(func() { hung.Stop() })
	_, _ = w.Close(), r.Close()
	return c
}

// says checks what the child prints next.
func (c *child) says(want string) {
	c.t.Helper()
	if line, err := c.stdout.ReadString('\n'); line != want+"\n" {
		c.t.Fatalf("the child says %q, %v; want %q; it ended: %v", line, err, want, c.cmd.Wait())
	}
}

// ends checks that the child ends by itself.
func (c *child) ends() {
	c.t.Helper()
	if err := c.cmd.Wait(); err != nil {
		c.t.Error(err)
	}
}

// A child can clean up after a signal, and after the reader of its stderr is gone.
func TestSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			c := startChild(t, "signals")
			c.says("ready")
			if _, err := io.WriteString(c.stdin, "go on\n"); err != nil {
				t.Fatal(err)
			}
			c.says("alone: true")
			if err := c.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			c.says("stopped")
			c.ends()
		})
	}
}

func TestStdinClosed(t *testing.T) {
	c := startChild(t, "stdin")
	c.says("ready")
	if err := c.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	c.says("orphaned")
	c.ends()
}
