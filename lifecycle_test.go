//go:build linux || darwin

package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/sidecar"
	"github.com/chatixia-ai/mesh/internal/sock"
)

func TestLaunch(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []Mode{InProcess, SelfExec, Binary, Attach} {
		t.Run(mode.String(), func(t *testing.T) {
			cfg := &Config{Mode: mode, Binary: self, Socket: socketPath(t)}
			if mode == Attach {
				ended := serveForTest(t, Config{Socket: cfg.Socket, SignalingURL: "ws://127.0.0.1:1/ws", APIKey: "k"})
				defer func() {
					if err := <-ended; err != nil {
						t.Errorf("the attached sidecar ended with %v", err)
					}
				}()
			}
			l, err := launch(context.Background(), cfg, testSettings())
			if err != nil {
				t.Fatal(err)
			}
			defer l.stop(context.Background())
			spawned := mode == SelfExec || mode == Binary
			if (l.pid != 0) != spawned || (l.token != "") != spawned || l.path == "" {
				t.Errorf("pid %d, token of %d characters, path %q", l.pid, len(l.token), l.path)
			}
			mustGreet(t, l)
			dir := "" // of the socket
			if spawned {
				dir = filepath.Dir(privateSocket())
				checkPrivate(t, filepath.Join(dir, "s"))
				if group, err := syscall.Getpgid(l.pid); group != l.pid {
					t.Errorf("process group %d, %v: Ctrl-C would end the sidecar before its agent", group, err)
				}
			}
			l.link.Close()
			l.stop(context.Background())
			l.stop(context.Background())
			if err := l.diagnose(); err != nil {
				t.Errorf("diagnosis of a sidecar that ended as it should: %v", err)
			}
			if spawned && (exists(dir) || running(l.pid)) {
				t.Errorf("left: directory %s: %t, process: %t", dir, exists(dir), running(l.pid))
			}
		})
	}
}

// checkPrivate checks that nobody else can reach the socket.
func checkPrivate(t *testing.T, path string) {
	t.Helper()
	for _, f := range []struct {
		path string
		mode fs.FileMode
	}{{path, fs.ModeSocket | 0o600}, {filepath.Dir(path), fs.ModeDir | 0o700}} {
		fi, err := os.Lstat(f.path)
		if err != nil {
			t.Error(err)
		} else if fi.Mode() != f.mode {
			t.Errorf("mode of %s is %v, want %v", f.path, fi.Mode(), f.mode)
		}
	}
}

func TestLaunchFailures(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, []byte("no program"), 0o700); err != nil { //nolint:gosec // it is to be executable
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	long := "/tmp/" + strings.Repeat("x", 200)
	var configErr *ConfigError
	var startErr *StartError
	for _, tc := range []struct {
		name   string
		cfg    Config
		env    map[string]string
		as     any      // the error's type
		is     error    // nil: anything
		wanted []string // in its text
	}{
		{name: "binary missing", cfg: Config{Mode: Binary, Binary: missing},
			as: &configErr, is: fs.ErrNotExist, wanted: []string{"Config.Binary", missing, "SIDECAR_BINARY", "PATH", "go install "}},
		{name: "binary from the environment missing", cfg: Config{Mode: Binary}, env: map[string]string{"SIDECAR_BINARY": missing},
			as: &configErr, is: fs.ErrNotExist, wanted: []string{"SIDECAR_BINARY: \"" + missing, "Config.Binary: not set"}},
		{name: "binary nowhere", cfg: Config{Mode: Binary}, env: map[string]string{"PATH": dir},
			as: &configErr, is: exec.ErrNotFound, wanted: []string{"Config.Binary: not set", "SIDECAR_BINARY: not set", "no chatixia-sidecar in \"" + dir, "go install "}},
		{name: "binary not executable", cfg: Config{Mode: Binary, Binary: plain},
			as: &configErr, is: fs.ErrPermission, wanted: []string{plain}},
		{name: "binary a directory", cfg: Config{Mode: Binary, Binary: dir},
			as: &configErr, is: syscall.EISDIR, wanted: []string{dir}},
		{name: "binary no program", cfg: Config{Mode: Binary, Binary: garbage},
			as: &startErr, is: syscall.ENOEXEC, wanted: []string{garbage, "mode Binary"}},
		{name: "binary crashes", cfg: Config{Mode: Binary, Binary: self}, env: map[string]string{helperEnv: "crash"},
			as: &startErr, is: errEnded, wanted: []string{self, "exit status 3", "boom: no such device"}},
		{name: "copy of itself crashes", cfg: Config{Mode: SelfExec}, env: map[string]string{helperEnv: "crash"},
			as: &startErr, is: errEnded, wanted: []string{"exit status 3", "boom: no such device", "mesh.SidecarMain()"}},
		{name: "hangs before it is ready", cfg: Config{Mode: SelfExec}, env: map[string]string{helperEnv: "hang"},
			as: &startErr, is: errNotReady, wanted: []string{"not ready within 500ms", "about to hang", "mesh.SidecarMain()"}},
		{name: "SidecarMain forgotten", cfg: Config{Mode: SelfExec}, env: map[string]string{helperEnv: "forgot"},
			as: &startErr, is: ErrNoSidecarMain, wanted: []string{"exit status 1"}},
		{name: "empty socket path", cfg: Config{Mode: Attach}, as: &configErr, is: sock.ErrPath, wanted: []string{"Socket"}},
		{name: "socket path too long", cfg: Config{Mode: Attach, Socket: long}, as: &configErr, is: sock.ErrPath, wanted: []string{"Socket", long}},
		{name: "socket is a file", cfg: Config{Mode: Attach, Socket: plain}, as: &startErr, is: sock.ErrNotSocket, wanted: []string{plain}},
		{name: "nobody listens", cfg: Config{Mode: Attach, Socket: missing}, as: &startErr, wanted: []string{missing, "no sidecar listens there", "IPC_SOCKET"}},
		{name: "no such mode", cfg: Config{Mode: 9}, as: &configErr, wanted: []string{"Mode(9)"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("SIDECAR_BINARY", "")
			for k, v := range tc.env {
				t.Setenv(k, v)
			}
			within := 500 * time.Millisecond
			if tc.is == errEnded || tc.is == ErrNoSidecarMain {
				within = time.Minute // a loaded machine is slow to start them
			}
			ctx, cancel := context.WithTimeoutCause(t.Context(), within, fmt.Errorf("%w within %v", errNotReady, within))
			defer cancel()
			l, err := launch(ctx, &tc.cfg, testSettings())
			if err == nil {
				l.stop(context.Background())
				t.Fatal("started")
			}
			if !errors.As(err, tc.as) || tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("error is %T %v; want a %T that is %v", err, err, tc.as, tc.is)
			}
			for _, w := range tc.wanted {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error does not say %q:\n%v", w, err)
				}
			}
		})
	}
}

func TestSocketOfAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give a socket away")
	}
	path := socketPath(t)
	listener, err := sock.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := os.Chown(path, 65534, -1); err != nil {
		t.Fatal(err)
	}
	_, err = launch(context.Background(), &Config{Mode: Attach, Socket: path}, testSettings())
	var start *StartError
	if !errors.As(err, &start) || !errors.Is(err, sock.ErrOwner) || !strings.Contains(err.Error(), path) {
		t.Errorf("error is %v", err)
	}
}

func TestFindBinary(t *testing.T) {
	dir := t.TempDir()
	link := func(name string) string {
		self, err := os.Executable()
		if err == nil {
			err = os.Symlink(self, filepath.Join(dir, name))
		}
		if err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	a, b, onPath := link("a"), link("b"), link(binaryName)
	t.Setenv("PATH", dir)
	for _, tc := range []struct{ configured, env, want string }{
		{a, b, a}, {"", b, b}, {"", "", onPath}, {a, "", a}, {"a", b, a},
	} {
		t.Setenv("SIDECAR_BINARY", tc.env)
		if got, err := findBinary(tc.configured); got != tc.want || err != nil {
			t.Errorf("configured %q, SIDECAR_BINARY %q: %q, %v; want %q", tc.configured, tc.env, got, err, tc.want)
		}
	}
}

func TestLaunchCancelled(t *testing.T) {
	t.Setenv(helperEnv, "hang")
	ctx, cancel := context.WithCancel(context.Background())
	log := &notifyingWriter{on: "about to hang", do: cancel} // the process runs by then
	_, err := launch(ctx, &Config{Mode: SelfExec, Logger: zerolog.New(log)}, testSettings())
	var start *StartError
	if !errors.As(err, &start) || !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	for _, mode := range []Mode{InProcess, SelfExec, Attach} {
		if _, err := launch(ctx, &Config{Mode: mode}, testSettings()); !errors.Is(err, context.Canceled) {
			t.Errorf("%v with a context that is over: %v", mode, err)
		}
	}
}

// notifyingWriter calls do when what is written contains on.
type notifyingWriter struct {
	on string
	do func()
}

func (w *notifyingWriter) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(w.on)) {
		w.do()
	}
	return len(b), nil
}

func TestLaunchNeedsSidecarMain(t *testing.T) {
	t.Setenv(sidecar.Variable, "{}")
	for _, mode := range []Mode{InProcess, SelfExec, Binary, Attach} {
		if _, err := launch(context.Background(), &Config{Mode: mode}, testSettings()); !errors.Is(err, ErrNoSidecarMain) {
			t.Errorf("%v in a process that is to be a sidecar: %v", mode, err)
		}
	}
	if err := ServeSidecar(context.Background(), Config{}); !errors.Is(err, ErrNoSidecarMain) {
		t.Errorf("ServeSidecar in a process that is to be a sidecar: %v", err)
	}
}

func TestForwardsSidecarLog(t *testing.T) {
	seen := make(chan struct{}, 1)
	log := &notifyingWriter{on: "sidecar\":\"SelfExec", do: func() {
		select {
		case seen <- struct{}{}:
		default:
		}
	}}
	l, err := launch(context.Background(), &Config{Mode: SelfExec, Logger: zerolog.New(log)},
		func() sidecar.Settings { s := testSettings(); s.LogLevel = "debug"; return s }())
	if err != nil {
		t.Fatal(err)
	}
	defer l.stop(context.Background())
	mustGreet(t, l)
	select {
	case <-seen:
	case <-time.After(10 * time.Second):
		t.Error("nothing of the sidecar's log arrived")
	}
	l.link.Close()
}

// A sidecar process that cannot do what it is configured to says so in the error
// of New, whatever its exit status.
func TestForkedSidecarFails(t *testing.T) {
	taken, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, mode := range []Mode{InProcess, SelfExec} {
		_, err := New(t.Context(), Config{Mode: mode, SignalingURL: "ws://127.0.0.1:1/ws", Network: Network{UDPPort: taken.LocalAddr().(*net.UDPAddr).Port}})
		var start *StartError
		if !errors.As(err, &start) || !strings.Contains(err.Error(), "address already in use") {
			t.Errorf("%v: got %v", mode, err)
		}
	}
}
