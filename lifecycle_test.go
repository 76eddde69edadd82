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

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/sidecar"
	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// A mesh has a sidecar that belongs to it alone, and leaves nothing of it.
func TestLaunch(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []Mode{InProcess, SelfExec, Binary, Attach} {
		t.Run(mode.String(), func(t *testing.T) {
			var log testutil.LogBuffer
			cfg := alone(mode)
			cfg.Binary, cfg.Socket, cfg.Logger = self, socketPath(t), zerolog.New(&log)
			cfg.OnError = func(err error) { t.Errorf("reported: %v", err) }
			if mode == Attach {
				served := alone(Attach)
				served.Socket = cfg.Socket
				ended := serveForTest(t, served)
				defer func() {
					if err := testutil.Take(t, "the end of the attached sidecar", ended); err != nil {
						t.Errorf("the attached sidecar ended with %v", err)
					}
				}()
			}
			var side *launched
			m, err := newMesh(bounded(t), cfg, func(ctx context.Context, cfg *Config, set sidecar.Settings) (_ *launched, err error) {
				side, err = launch(ctx, cfg, set)
				return side, err
			})
			if err != nil {
				t.Fatal(err)
			}
			pid := m.SidecarPID()
			spawned := mode == SelfExec || mode == Binary
			if (pid != 0) != spawned || (side.token != "") != spawned || side.path == "" {
				t.Errorf("process id %d, token of %d characters, path %q", pid, len(side.token), side.path)
			}
			dir := "" // of the socket
			if spawned {
				dir = filepath.Dir(privateSocket())
				checkPrivate(t, filepath.Join(dir, "s"))
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			if spawned && (exists(dir) || running(pid)) {
				t.Errorf("left: directory %s: %t, process: %t", dir, exists(dir), running(pid))
			}
			if err := side.diagnose(); err != nil {
				t.Errorf("diagnosis of a sidecar that ended as it should: %v", err)
			}
		})
	}
}

// checkPrivate checks that no other user can reach the socket.
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
		until  string   // the start ends when the sidecar has said this
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
		{name: "hangs before it is ready", cfg: Config{Mode: SelfExec}, env: map[string]string{helperEnv: "hang"}, until: "about to hang",
			as: &startErr, is: errNotReady, wanted: []string{"did not listen in time", "not ready", "about to hang", "mesh.SidecarMain()"}},
		{name: "SidecarMain forgotten", cfg: Config{Mode: SelfExec}, env: map[string]string{helperEnv: "forgot"},
			as: &startErr, is: ErrNoSidecarMain, wanted: []string{"exit status 1"}},
		{name: "socket path too long", cfg: Config{Mode: Attach, Socket: long}, as: &configErr, is: sock.ErrPath, wanted: []string{"Socket", long}},
		{name: "socket is a file", cfg: Config{Mode: Attach, Socket: plain}, as: &startErr, is: sock.ErrNotSocket, wanted: []string{plain}},
		{name: "no such mode", cfg: Config{Mode: 9}, as: &configErr, wanted: []string{"Mode(9)"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("SIDECAR_BINARY", "")
			for k, v := range tc.env {
				t.Setenv(k, v)
			}
			ctx, end := context.WithCancelCause(bounded(t))
			defer end(nil)
			if tc.until != "" {
				tc.cfg.Logger = zerolog.New(&notifyingWriter{on: tc.until, do: func() { end(errNotReady) }})
			}
			tc.cfg.SignalingURL = "ws://127.0.0.1:1/ws"
			m, err := New(ctx, tc.cfg)
			if err == nil {
				_ = m.Close()
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
	cfg := alone(Attach)
	cfg.Socket = path
	_, err = New(bounded(t), cfg)
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
	cfg := alone(SelfExec)
	cfg.Logger = zerolog.New(&notifyingWriter{on: "about to hang", do: cancel}) // the process runs by then
	_, err := New(ctx, cfg)
	var start *StartError
	if !errors.As(err, &start) || !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	for _, mode := range []Mode{InProcess, SelfExec, Attach} {
		if _, err := New(ctx, alone(mode)); !errors.Is(err, context.Canceled) {
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
		if _, err := New(t.Context(), alone(mode)); !errors.Is(err, ErrNoSidecarMain) {
			t.Errorf("%v in a process that is to be a sidecar: %v", mode, err)
		}
	}
	if err := ServeSidecar(context.Background(), Config{}); !errors.Is(err, ErrNoSidecarMain) {
		t.Errorf("ServeSidecar in a process that is to be a sidecar: %v", err)
	}
}

func TestForwardsSidecarLog(t *testing.T) {
	var log testutil.LogBuffer
	cfg := alone(SelfExec)
	cfg.Logger = zerolog.New(&log)
	m := start(t, cfg)
	log.Wait(t, fmt.Sprintf(`"sidecar":"SelfExec","pid":%d,`, m.SidecarPID()))
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
		_, err := New(bounded(t), Config{Mode: mode, SignalingURL: "ws://127.0.0.1:1/ws", Network: Network{UDPPort: taken.LocalAddr().(*net.UDPAddr).Port}})
		var start *StartError
		if !errors.As(err, &start) || !strings.Contains(err.Error(), "address already in use") {
			t.Errorf("%v: got %v", mode, err)
		}
	}
}

// inOwnProcess runs a test that changes what all of a process have in a process of its own, beside other tests, and
// reports whether it has. It is for the first line of that test.
func inOwnProcess(t *testing.T) bool {
	t.Helper()
	const variable = "MESH_TEST_ITSELF"
	if os.Getenv(variable) != "" {
		return false
	}
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), variable+"=1")
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("PASS")) {
		t.Errorf("%v\n%s", err, out)
	}
	return true
}

// What the host lacks, such as file descriptors, ends no mesh, however long it lasts: it is reported, and waited for.
func TestShortage(t *testing.T) {
	outlasts(t, syscall.EMFILE, func() (restore func()) { return testutil.NoMoreDescriptors(t) })
}

// So does a full disk on which there was room for the directory, and is none for the socket: it is the sidecar
// that fails.
func TestSidecarShortage(t *testing.T) {
	outlasts(t, syscall.ENOSPC, func() (restore func()) {
		t.Setenv(helperEnv, "lacking")
		return func() { _ = os.Unsetenv(helperEnv) }
	})
}

// Nor does a limit of threads or memory that leaves room for the process and none for its runtime.
func TestSidecarStarved(t *testing.T) {
	outlasts(t, syscall.EAGAIN, func() (restore func()) { // "resource temporarily unavailable"
		t.Setenv(helperEnv, "starved")
		return func() { _ = os.Unsetenv(helperEnv) }
	})
}

// outlasts kills the sidecar of a mesh while the host lacks something, for more starts than make a crash loop.
func outlasts(t *testing.T, lacking error, lack func() (restore func())) {
	if inOwnProcess(t) {
		return
	}
	restore := func() {}
	defer func() { restore() }()
	reports := make(chan error, 64)
	cfg := alone(SelfExec)
	cfg.OnError = func(err error) { reports <- err }
	m := start(t, cfg)
	first := m.SidecarPID()
	restore = lack()
	kill(t, first)
	for n := 0; n <= maxShortLives; {
		select {
		case err := <-reports:
			if strings.Contains(strings.ToLower(err.Error()), lacking.Error()) {
				n++
			} else if !errors.Is(err, ErrSidecarLost) {
				t.Fatalf("reported %v", err)
			}
		case <-m.Done():
			t.Fatalf("the mesh ended: %v", m.Err())
		}
	}
	restore()
	restore = func() {}
	testutil.Eventually(t, "the next sidecar", func() bool { pid := m.SidecarPID(); return pid != 0 && pid != first })
	if err := m.Err(); err != nil {
		t.Errorf("the mesh ended: %v", err)
	}
}
