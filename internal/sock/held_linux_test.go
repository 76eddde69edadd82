package sock_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chatixia-ai/mesh/internal/sock"
)

// runtimeDir makes a private directory that $XDG_RUNTIME_DIR names.
func runtimeDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "run-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	t.Setenv("XDG_RUNTIME_DIR", dir)
	return dir
}

// checkHeld checks that an error says who is in the way, by uid and pid, and which path would be free.
func checkHeld(t *testing.T, err, want error, pid int, says ...string) {
	t.Helper()
	if pid != 0 {
		says = append(says, fmt.Sprintf("pid %d", pid))
	}
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
		return
	}
	for _, s := range append(says, fmt.Sprintf("uid %d", other), os.Getenv("XDG_RUNTIME_DIR")+"/sidecar") {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%q is not in: %v", s, err)
		}
	}
}

// Another user can hold the name of a socket in a shared directory, a name beside it, or a lock on the directory. Each
// of them makes Listen fail, and the error says who it is and what to do.
func TestHeldByAnotherUser(t *testing.T) {
	for _, c := range []struct {
		name string
		hold func(t *testing.T, path string) (pid int)
		want error
	}{
		{"the socket", func(t *testing.T, path string) int {
			return asOtherPID(t, "listen "+path)
		}, sock.ErrOwner},
		{"a stale socket", func(t *testing.T, path string) int {
			staleSocket(t, path)
			if err := os.Chown(path, other, -1); err != nil {
				t.Fatal(err)
			}
			return 0
		}, sock.ErrOwner},
		{"a file", func(t *testing.T, path string) int {
			if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chown(path, other, -1)); err != nil {
				t.Fatal(err)
			}
			return 0
		}, sock.ErrNotSocket},
		{"a symbolic link", func(t *testing.T, path string) int {
			if err := errors.Join(os.Symlink("/etc/passwd", path), os.Lchown(path, other, -1)); err != nil {
				t.Fatal(err)
			}
			return 0
		}, sock.ErrNotSocket},
		{"this user's file, another one's listener", func(t *testing.T, path string) int {
			pid := asOtherPID(t, "listen "+path)
			if err := os.Chown(path, os.Getuid(), -1); err != nil {
				t.Fatal(err)
			}
			return pid
		}, sock.ErrInUse},
		{"the lock", func(t *testing.T, path string) int {
			return asOtherPID(t, "lock "+filepath.Dir(path))
		}, sock.ErrLocked},
	} {
		t.Run(c.name, func(t *testing.T) {
			runtimeDir(t)
			path := filepath.Join(sharedDir(t), "sidecar")
			pid := c.hold(t, path)
			_, err := sock.Listen(path)
			checkHeld(t, err, c.want, pid, path)
		})
	}
	t.Run("the names beside it", func(t *testing.T) {
		runtimeDir(t)
		path := filepath.Join(sharedDir(t), "sidecar")
		var pid int
		var beside []string
		for _, last := range "~#+" {
			name := path[:len(path)-1] + string(last)
			beside = append(beside, name)
			pid = asOtherPID(t, "listen "+name)
		}
		_, err := sock.Listen(path)
		checkHeld(t, err, sock.ErrOwner, pid, beside...)
	})
}

func TestDialHeldByAnotherUser(t *testing.T) {
	runtimeDir(t)
	path := filepath.Join(sharedDir(t), "sidecar")
	pid := asOtherPID(t, "listen "+path)
	_, err := sock.Dial(t.Context(), path)
	checkHeld(t, err, sock.ErrOwner, pid, path)
	if err := os.Chown(path, os.Getuid(), -1); err != nil {
		t.Fatal(err)
	}
	_, err = sock.Dial(t.Context(), path)
	checkHeld(t, err, sock.ErrPeer, pid, path)
}

// What this user holds is said as well; in a private directory there is nothing to advise.
func TestHeldByThisUser(t *testing.T) {
	dir := runtimeDir(t)
	path := filepath.Join(dir, "sidecar")
	listen(t, path)
	want := fmt.Sprintf("pid %d", os.Getpid())
	if _, err := sock.Listen(path); !errors.Is(err, sock.ErrInUse) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "such as") {
		t.Errorf("Listen = %v, want ErrInUse with %s and no advice", err, want)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := sock.Listen(path + "2"); !errors.Is(err, sock.ErrLocked) || !strings.Contains(err.Error(), want) {
		t.Errorf("Listen = %v, want ErrLocked with %s", err, want)
	}
}
