//go:build linux || darwin

package sock_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

func listen(t *testing.T, path string) net.Listener {
	t.Helper()
	ln, err := sock.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// staleSocket makes what a killed process leaves: a socket file on which no process listens.
func staleSocket(t *testing.T, path string) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
}

// exchange dials path and passes a byte each way.
func exchange(t *testing.T, ln net.Listener, path string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testutil.Patience)
	defer cancel()
	client, err := sock.Dial(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if err := sock.CheckPeer(server); err != nil {
		t.Errorf("CheckPeer of a client of this user: %v", err)
	}
	for _, c := range [][2]net.Conn{{client, server}, {server, client}} {
		if _, err := c[0].Write([]byte{'x'}); err != nil {
			t.Fatal(err)
		}
		if _, err := c[1].Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func checkMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode() != want {
		t.Errorf("%s has mode %v, want %v", path, fi.Mode(), want)
	}
}

func TestListen(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(t *testing.T, path string)
		want    error // nil: the path is free or becomes free
	}{
		{"nothing there", func(*testing.T, string) {}, nil},
		{"stale socket", staleSocket, nil},
		{"live listener", func(t *testing.T, path string) { listen(t, path) }, sock.ErrInUse},
		{"live listener with a full backlog", fullListener, sock.ErrInUse},
		{"regular file", func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, sock.ErrNotSocket},
		{"directory", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, sock.ErrNotSocket},
		{"symbolic link to a stale socket", func(t *testing.T, path string) {
			staleSocket(t, path+"2")
			if err := os.Symlink(path+"2", path); err != nil {
				t.Fatal(err)
			}
		}, sock.ErrNotSocket},
		{"dangling symbolic link", func(t *testing.T, path string) {
			if err := os.Symlink(path+"2", path); err != nil {
				t.Fatal(err)
			}
		}, sock.ErrNotSocket},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(testutil.ShortDir(t), "s")
			tt.prepare(t, path)
			before, _ := os.Lstat(path)
			ln, err := sock.Listen(path)
			if tt.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				defer ln.Close()
				exchange(t, ln, path)
				return
			}
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("Listen = %v, want %v with the path", err, tt.want)
			}
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
				t.Errorf("the file at the path was replaced or removed: %v", err)
			}
		})
	}
	t.Run("no such directory", func(t *testing.T) {
		path := filepath.Join(testutil.ShortDir(t), "no", "s")
		if _, err := sock.Listen(path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
			t.Errorf("Listen = %v, want ErrNotExist with the path", err)
		}
	})
}

// fullListener listens on path and takes connections until the kernel has no room for more.
func fullListener(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat("/proc/self"); err != nil {
		t.Skip("only Linux distinguishes a full backlog from a stale socket")
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 1)); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		conn, err := net.Dial("unix", path)
		if errors.Is(err, syscall.EAGAIN) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Fatal("the backlog never fills")
}

// A umask of 0 must not widen the socket's mode.
func TestListenMode(t *testing.T) {
	path := filepath.Join(testutil.ShortDir(t), "s")
	old := syscall.Umask(0) // no test of this package runs in parallel
	ln, err := sock.Listen(path)
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	checkMode(t, path, fs.ModeSocket|0o600)
}

// Of several processes that find the same stale socket, exactly one gets the path, and it keeps it.
func TestListenRace(t *testing.T) {
	path := filepath.Join(testutil.ShortDir(t), "s")
	for round := range 50 {
		staleSocket(t, path)
		listeners := make([]net.Listener, 4)
		errs := make([]error, len(listeners))
		var wg sync.WaitGroup
		for i := range listeners {
			wg.Go(func() { listeners[i], errs[i] = sock.Listen(path) })
		}
		wg.Wait()
		var winner net.Listener
		for i, ln := range listeners {
			switch {
			case errs[i] == nil && winner == nil:
				winner = ln
			case errs[i] == nil:
				t.Fatalf("round %d: two listeners on one path", round)
			case !errors.Is(errs[i], sock.ErrInUse):
				t.Fatalf("round %d: %v", round, errs[i])
			}
		}
		if winner == nil {
			t.Fatalf("round %d: no listener", round)
		}
		conn, err := sock.Dial(t.Context(), path)
		if err != nil {
			t.Fatalf("round %d: the winner cannot be reached: %v", round, err)
		}
		if err := errors.Join(conn.Close(), winner.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestListenLockedDirectory(t *testing.T) {
	dir := testutil.ShortDir(t)
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := sock.Listen(filepath.Join(dir, "s")); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("Listen = %v, want an error that names the locked directory", err)
	}
}

func TestCloseRemovesOnlyItsOwnSocket(t *testing.T) {
	t.Run("its own", func(t *testing.T) {
		path := filepath.Join(testutil.ShortDir(t), "s")
		ln := listen(t, path)
		if err := errors.Join(ln.Close(), ln.Close()); err != nil {
			t.Error(err)
		}
		if exists(t, path) {
			t.Error("the socket is still there")
		}
	})
	t.Run("removed already", func(t *testing.T) {
		path := filepath.Join(testutil.ShortDir(t), "s")
		ln := listen(t, path)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("replaced", func(t *testing.T) {
		path := filepath.Join(testutil.ShortDir(t), "s")
		old := listen(t, path)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		ln := listen(t, path)
		if err := old.Close(); err != nil {
			t.Error(err)
		}
		exchange(t, ln, path)
	})
	t.Run("after a change of directory", func(t *testing.T) {
		dir := testutil.ShortDir(t)
		t.Chdir(dir)
		ln := listen(t, "s")
		t.Chdir("/")
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
		if exists(t, filepath.Join(dir, "s")) {
			t.Error("the socket is still there")
		}
	})
}

func TestDial(t *testing.T) {
	path := filepath.Join(testutil.ShortDir(t), "s")
	if _, err := sock.Dial(t.Context(), path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("nothing there: %v, want ErrNotExist with the path", err)
	}
	staleSocket(t, path)
	if _, err := sock.Dial(t.Context(), path); !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), path) {
		t.Errorf("stale socket: %v, want ECONNREFUSED with the path", err)
	}
	file := path + "2"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sock.Dial(t.Context(), file); !errors.Is(err, sock.ErrNotSocket) {
		t.Errorf("regular file: %v, want ErrNotSocket", err)
	}
	ln := listen(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := sock.Dial(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v, want Canceled", err)
	}
	link := path + "3"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	exchange(t, ln, link)
}

func TestCheckPeerNeedsAUnixSocket(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if err := sock.CheckPeer(a); !errors.Is(err, sock.ErrUnsupported) {
		t.Errorf("net.Pipe: %v, want ErrUnsupported", err)
	}
}

func TestPeerPID(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// child starts a helper and returns its process id.
	child := func(t *testing.T, command string) int {
		t.Helper()
		cmd := exec.Command(exe)
		cmd.Env = []string{helperEnv + "=" + command}
		if got := startHelper(t, cmd); got != "ok" {
			t.Fatalf("helper: %s", got)
		}
		return cmd.Process.Pid
	}
	check := func(t *testing.T, conn net.Conn, err error, want int) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if pid, ok := sock.PeerPID(conn); pid != want || !ok {
			t.Errorf("PeerPID = %d, %v; want %d", pid, ok, want)
		}
	}
	t.Run("child dialed", func(t *testing.T) {
		path := filepath.Join(testutil.ShortDir(t), "s")
		ln := listen(t, path)
		pid := child(t, "dial "+path)
		conn, err := ln.Accept()
		check(t, conn, err, pid)
	})
	t.Run("child listens", func(t *testing.T) {
		path := filepath.Join(testutil.ShortDir(t), "s")
		pid := child(t, "listen "+path)
		conn, err := sock.Dial(t.Context(), path)
		check(t, conn, err, pid)
	})
	t.Run("this process", func(t *testing.T) {
		a, b := socketPair(t)
		check(t, a, nil, os.Getpid())
		check(t, b, nil, os.Getpid())
	})
	t.Run("no socket", func(t *testing.T) {
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		if pid, ok := sock.PeerPID(a); ok {
			t.Errorf("a pipe in memory has a peer with process id %d", pid)
		}
	})
}

func TestNewDir(t *testing.T) {
	mkdir := func(t *testing.T, mode os.FileMode) string {
		dir := filepath.Join(testutil.ShortDir(t), "d")
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, mode)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	tests := []struct {
		name    string
		runtime func(t *testing.T) string
		used    bool
	}{
		{"unset", func(*testing.T) string { return "" }, false},
		{"private", func(t *testing.T) string { return mkdir(t, 0o700) }, true},
		{"others may write", func(t *testing.T) string { return mkdir(t, 0o777) }, false},
		{"missing", func(t *testing.T) string { return filepath.Join(testutil.ShortDir(t), "no") }, false},
		{"relative", func(*testing.T) string { return "." }, false},
		{"too long", longDir, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			runtime, tmp := tt.runtime(t), testutil.ShortDir(t)
			t.Setenv("XDG_RUNTIME_DIR", runtime)
			t.Setenv("TMPDIR", tmp)
			parent := tmp
			if tt.used {
				parent = runtime
			}
			for _, umask := range []int{0, 0o77, 0o377} {
				old := syscall.Umask(umask)
				d, err := sock.NewDir()
				syscall.Umask(old)
				if err != nil {
					t.Fatal(err)
				}
				dir := filepath.Dir(d.Socket())
				if filepath.Dir(dir) != parent {
					t.Errorf("made %s, want it in %s", dir, parent)
				}
				checkMode(t, dir, fs.ModeDir|0o700)
				if err := sock.CheckPath(d.Socket()); err != nil {
					t.Errorf("no room for a socket: %v", err)
				}
				if err := d.Remove(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// When the place that TMPDIR names is of no use, NewDir finds another one.
func TestNewDirFallsBack(t *testing.T) {
	for name, tmp := range map[string]func(t *testing.T) string{
		"too long":        longDir,
		"missing":         func(t *testing.T) string { return filepath.Join(testutil.ShortDir(t), "no") },
		"not a directory": plainFile,
		"not writable": func(t *testing.T) string {
			if os.Geteuid() == 0 {
				t.Skip("root can write everywhere")
			}
			dir := testutil.ShortDir(t)
			if err := os.Chmod(dir, 0o500); err != nil {
				t.Fatal(err)
			}
			return dir
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("XDG_RUNTIME_DIR", "")
			t.Setenv("TMPDIR", tmp(t))
			dir, err := sock.NewDir()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = dir.Remove() }()
			ln, err := sock.Listen(dir.Socket())
			if err != nil {
				t.Fatal(err)
			}
			if err := ln.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Without any usable place the error names each of them once, with its reason, and what to set.
func TestNewDirNowhere(t *testing.T) {
	missing, file, long := filepath.Join(testutil.ShortDir(t), "no"), plainFile(t), longDir(t)
	open := testutil.ShortDir(t)
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		unchecked, shared string
		is                []error
		want              []string
	}{
		{missing, long, []error{fs.ErrNotExist, sock.ErrPath}, []string{missing + ": no such file", long + ": unusable socket path"}},
		{file, open, []error{syscall.ENOTDIR}, []string{file + ": not a directory", open + ": other users can write to it"}},
		{missing, missing, []error{fs.ErrNotExist}, []string{missing}},
		{missing, ".", []error{fs.ErrNotExist}, []string{missing, ".: it is not an absolute path"}},
	} {
		dir, err := sock.NewDirIn(tt.unchecked, tt.shared)
		if err == nil {
			t.Errorf("%s, %s: made %s", tt.unchecked, tt.shared, dir.Socket())
			continue
		}
		for _, target := range tt.is {
			if !errors.Is(err, target) {
				t.Errorf("error %q is not %v", err, target)
			}
		}
		for _, w := range append(tt.want, "XDG_RUNTIME_DIR", "TMPDIR") {
			if strings.Count(err.Error(), w) != 1 {
				t.Errorf("error %q does not say %q once", err, w)
			}
		}
	}
}

// longDir returns a directory in which no socket has room.
func longDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(testutil.ShortDir(t), strings.Repeat("x", 100))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func plainFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(testutil.ShortDir(t), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func ExampleListen() {
	dir, err := sock.NewDir()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = dir.Remove() }()
	path := dir.Socket()
	ln, err := sock.Listen(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ln.Close()
	_, err = sock.Listen(path)
	fmt.Println(errors.Is(err, sock.ErrInUse))
	// Output: true
}

// A program that watches for the file can connect as soon as it is there.
func TestListenAppearsConnectable(t *testing.T) {
	dir := testutil.ShortDir(t)
	for i := range 200 {
		path := filepath.Join(dir, fmt.Sprintf("s%d", i))
		refused := make(chan error, 1)
		go func() {
			for {
				if _, err := os.Lstat(path); err == nil {
					break
				}
				runtime.Gosched()
			}
			conn, err := net.Dial("unix", path)
			if err == nil {
				err = conn.Close()
			}
			refused <- err
		}()
		l, err := sock.Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := <-refused; err != nil {
			t.Fatalf("the file was there: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestHung(t *testing.T) {
	path := filepath.Join(testutil.ShortDir(t), "s")
	l := listen(t, path)
	for _, how := range []string{"open", "half", "closed"} {
		theirs, err := sock.Dial(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
		switch how {
		case "half":
			if err := theirs.(*net.UnixConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
		case "closed":
			_ = theirs.Close()
		}
		if got, want := sock.Hung(ours), how == "closed"; got != want {
			t.Errorf("other end %s: %t, want %t", how, got, want)
		}
		if got, want := sock.Ended(ours), how != "open"; got != want {
			t.Errorf("other end %s has ended: %t, want %t", how, got, want)
		}
	}
}

// A connection has ended when there is nothing left to read.
func TestEndedBehindBytes(t *testing.T) {
	path := filepath.Join(testutil.ShortDir(t), "s")
	l := listen(t, path)
	theirs, err := sock.Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	_, _ = theirs.Write([]byte("x"))
	theirs.Close()
	if sock.Ended(ours) {
		t.Error("there is a byte to read")
	}
	if b, err := io.ReadAll(ours); string(b) != "x" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
	if !sock.Ended(ours) {
		t.Error("all was read")
	}
}
