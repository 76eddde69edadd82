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
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/chatixia-ai/mesh/internal/sock"
)

// other is a user id that is not ours: nobody, by convention.
const other = 65534

// helperEnv makes the test binary act as another process: "dial PATH", "listen PATH" or "tempdir".
const helperEnv = "SOCK_TEST_HELPER"

func TestMain(m *testing.M) {
	if command := os.Getenv(helperEnv); command != "" {
		fmt.Println(helper(command))
		_, _ = io.Copy(io.Discard, os.Stdin) // keep the connection until the test has seen it
		return
	}
	goleak.VerifyTestMain(m)
}

// keep holds what the helper has open until it ends.
var keep io.Closer

// helper does one thing without any of this package's checks on its side and says how it went.
func helper(command string) string {
	verb, path, _ := strings.Cut(command, " ")
	var err error
	switch verb {
	case "dial":
		keep, err = net.Dial("unix", path)
	case "listen":
		keep, err = net.Listen("unix", path)
	case "tempdir":
		if path, err = sock.TempDir(); err == nil {
			err = os.Remove(path)
		}
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

// asOther runs the helper as the other user and returns what it says. It ends with the test.
func asOther(t *testing.T, command string, env ...string) string {
	t.Helper()
	// By /proc/self/exe, because go test puts the binary into a directory that is closed to others.
	cmd := exec.Command("/proc/self/exe")
	cmd.Dir = "/"
	// Without GORACE the race detector keeps the helper a second longer.
	cmd.Env = append(env, helperEnv+"="+command, "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: other, Gid: other}}
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
		if err := cmd.Wait(); err != nil {
			t.Errorf("helper: %v", err)
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("helper said nothing: %v", err)
	}
	return strings.TrimSuffix(line, "\n")
}

// sharedDir is a directory that the other user can enter and write to. (A directory inside t.TempDir cannot be entered.)
func sharedDir(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to act as another user")
	}
	dir := shortDir(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAnotherUserCannotConnect(t *testing.T) {
	path := filepath.Join(sharedDir(t), "s")
	listen(t, path)
	if got := asOther(t, "dial "+path); got != "permission denied" {
		t.Errorf("another user dialled: %s", got)
	}
}

func TestCheckPeerOfAnotherUser(t *testing.T) {
	path := filepath.Join(sharedDir(t), "s")
	ln := listen(t, path)
	if err := os.Chmod(path, 0o666); err != nil { // what a user might do who knows no better
		t.Fatal(err)
	}
	if got := asOther(t, "dial "+path); got != "ok" {
		t.Fatalf("helper: %s", got)
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := sock.CheckPeer(conn); !errors.Is(err, sock.ErrPeer) || !strings.Contains(err.Error(), fmt.Sprint(other)) {
		t.Errorf("CheckPeer = %v, want ErrPeer with uid %d", err, other)
	}
}

func TestDialAnotherUser(t *testing.T) {
	path := filepath.Join(sharedDir(t), "s")
	if got := asOther(t, "listen "+path); got != "ok" {
		t.Fatalf("helper: %s", got)
	}
	check := func(want error) {
		t.Helper()
		_, err := sock.Dial(t.Context(), path)
		if !errors.Is(err, want) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), fmt.Sprint(other)) {
			t.Errorf("Dial = %v, want %v with the path and uid %d", err, want, other)
		}
	}
	check(sock.ErrOwner)
	// A socket file that is ours says nothing about who listens on it.
	if err := os.Chown(path, os.Getuid(), -1); err != nil {
		t.Fatal(err)
	}
	check(sock.ErrPeer)
}

func TestListenOnAnotherUsersSocket(t *testing.T) {
	dir := sharedDir(t)
	for _, tt := range []struct {
		name    string
		prepare func(path string)
	}{
		{"live", func(path string) {
			if got := asOther(t, "listen "+path); got != "ok" {
				t.Fatalf("helper: %s", got)
			}
		}},
		{"leftover", func(path string) {
			leftover(t, path)
			if err := os.Chown(path, other, -1); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(dir, tt.name)
			tt.prepare(path)
			if _, err := sock.Listen(path); !errors.Is(err, sock.ErrOwner) {
				t.Errorf("Listen = %v, want ErrOwner", err)
			}
			if !exists(t, path) {
				t.Error("another user's socket was removed")
			}
		})
	}
}

func TestTempDirIgnoresAnotherUsersRuntimeDir(t *testing.T) {
	runtime := filepath.Join(sharedDir(t), "run")
	if err := errors.Join(os.Mkdir(runtime, 0o700), os.Chown(runtime, other, -1)); err != nil {
		t.Fatal(err)
	}
	tmp := shortDir(t)
	t.Setenv("XDG_RUNTIME_DIR", runtime)
	t.Setenv("TMPDIR", tmp)
	dir, err := sock.TempDir()
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(dir) != tmp {
		t.Errorf("made %s, want it in %s", dir, tmp)
	}
}

// As TestTempDirFallsBack, where TMPDIR may be entered and not written to.
func TestTempDirOfAnotherUser(t *testing.T) {
	dir := sharedDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := asOther(t, "tempdir", "TMPDIR="+dir); got != "ok" {
		t.Errorf("no directory for another user: %s", got)
	}
}
