package sock_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// other is the id of another user, by convention that of "nobody".
const other = 65534

// asOtherPID runs the helper as the other user, which must succeed, and returns the id of the process.
func asOtherPID(t *testing.T, command string) (pid int) {
	t.Helper()
	cmd := otherHelper(command)
	if got := startHelper(t, cmd); got != "ok" {
		t.Fatalf("helper: %s", got)
	}
	return cmd.Process.Pid
}

// asOther runs the helper as the other user and returns its answer.
func asOther(t *testing.T, command string, env ...string) string {
	t.Helper()
	return startHelper(t, otherHelper(command, env...))
}

func otherHelper(command string, env ...string) *exec.Cmd {
	// By /proc/self/exe, because go test puts the binary into a directory that is closed to others.
	cmd := exec.Command("/proc/self/exe")
	cmd.Dir = "/"
	cmd.Env = append(env, helperEnv+"="+command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: other, Gid: other}}
	return cmd
}

// sharedDir is a directory that the other user can enter and write to. It lies in /tmp itself: t.TempDir and TMPDIR may
// lie inside a directory that others cannot enter.
func sharedDir(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to act as another user")
	}
	dir, err := os.MkdirTemp("/tmp", "sock-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAnotherUserCannotConnect(t *testing.T) {
	path := filepath.Join(sharedDir(t), "s")
	listen(t, path)
	if got := asOther(t, "dial "+path); got != "permission denied" {
		t.Errorf("another user dialed: %s", got)
	}
}

func TestCheckPeerOfAnotherUser(t *testing.T) {
	path := filepath.Join(sharedDir(t), "s")
	ln := listen(t, path)
	if err := os.Chmod(path, 0o666); err != nil { // as a careless user might
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
	// The owner of the file need not be the user that listens on it.
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
		{"stale", func(path string) {
			staleSocket(t, path)
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

func TestNewDirIgnoresAnotherUsersRuntimeDir(t *testing.T) {
	runtime := filepath.Join(sharedDir(t), "run")
	if err := errors.Join(os.Mkdir(runtime, 0o700), os.Chown(runtime, other, -1)); err != nil {
		t.Fatal(err)
	}
	tmp := testutil.ShortDir(t)
	t.Setenv("XDG_RUNTIME_DIR", runtime)
	t.Setenv("TMPDIR", tmp)
	d, err := sock.NewDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(d.Socket())
	if filepath.Dir(dir) != tmp {
		t.Errorf("made %s, want it in %s", dir, tmp)
	}
}

// As TestNewDirFallsBack, where TMPDIR may be entered and not written to.
func TestNewDirOfAnotherUser(t *testing.T) {
	dir := sharedDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := asOther(t, "newdir", "TMPDIR="+dir); got != "ok" {
		t.Errorf("no directory for another user: %s", got)
	}
}
