//go:build linux || darwin

package sock_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/chatixia-ai/mesh/internal/sock"
)

// helperEnv makes the test binary act as another process: "dial PATH", "listen PATH", "lock
// DIR", "newdir", or "leave".
const helperEnv = "SOCK_TEST_HELPER"

func TestMain(m *testing.M) {
	if command := os.Getenv(helperEnv); command != "" {
		fmt.Println(helper(command))
		_, _ = io.Copy(io.Discard, os.Stdin) // keep it open until the test ends
		return
	}
	goleak.VerifyTestMain(m)
}

// keep is the connection or listener that the helper has open.
var keep io.Closer

// helper runs one command and returns its outcome. It dials and listens without this package's checks.
func helper(command string) string {
	verb, path, _ := strings.Cut(command, " ")
	var err error
	switch verb {
	case "dial":
		keep, err = net.Dial("unix", path)
	case "listen":
		keep, err = net.Listen("unix", path)
	case "lock":
		var f *os.File
		if f, err = os.Open(path); err == nil {
			keep, err = f, syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		}
	case "newdir":
		var d *sock.Dir
		if d, err = sock.NewDir(); err == nil {
			err = d.Remove()
		}
	case "leave":
		return leave()
	default:
		err = fmt.Errorf("unknown command %q", command)
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "permission denied"
	case err != nil:
		return err.Error()
	}
	return "ok"
}

// leave makes a directory and the socket in it, which remain if the process is killed, and returns the socket's path.
func leave() string {
	d, err := sock.NewDir()
	if err != nil {
		return err.Error()
	}
	l, err := sock.Listen(d.Socket())
	if err != nil {
		return err.Error()
	}
	keep, left = l, d
	return d.Socket()
}

// left keeps what leave has made from being collected, and its files closed.
var left *sock.Dir

// startHelper starts the helper and returns its answer. The process lives until the end of the test.
func startHelper(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0") // or the race detector delays its exit by a second
	cmd.Stderr = os.Stderr
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
	t.Cleanup(func() {
		_ = stdin.Close()
		if cmd.ProcessState != nil { // the test has killed it, and waited
			return
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("helper: %v", err)
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the helper printed no line: %v", err)
	}
	return strings.TrimSuffix(line, "\n")
}
