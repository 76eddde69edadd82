package mesh

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/sock"
)

const (
	// readyWait is how long a sidecar may take from its start to its first
	// connection.
	readyWait = 5 * time.Second
	// dialFirst and dialMost are the waits between attempts to connect to it.
	dialFirst, dialMost = time.Millisecond, 100 * time.Millisecond

	// Stopping a sidecar takes at most eofGrace after its link was closed,
	// termGrace after SIGTERM and pipeGrace after SIGKILL: with the drain before
	// it, no more than closeTimeout.
	eofGrace  = 2 * time.Second
	termGrace = 500 * time.Millisecond

	binaryName = "chatixia-sidecar"
	installCmd = "go install github.com/chatixia-ai/mesh/cmd/chatixia-sidecar@latest"
)

// launched is one running sidecar and the link to it. Nothing else of
// this package knows where a sidecar runs.
type launched struct {
	link  *link
	token string // for hello; "" where the sidecar wants none
	pid   int    // 0 where there is no process of ours
	path  string // the executable or the socket, for messages

	// stop, called after link was closed or to give up, waits for the sidecar
	// to end by itself until ctx ends or its grace is over, then makes it end,
	// within 5 s in all. When it returns nothing of the sidecar is left. It may
	// be called any number of times, from any goroutine.
	stop func(ctx context.Context)

	// diagnose tells, after stop, what was wrong with the way the sidecar ended:
	// its exit status or signal and the end of its stderr. nil if nothing was.
	diagnose func() error
}

// launch starts a sidecar, or for Attach finds the one that runs, and connects
// to it. ctx bounds the start and nothing after it. Errors are *StartError,
// *ConfigError and ErrNotDispatched.
func launch(ctx context.Context, cfg *Config, set settings) (*launched, error) {
	return (&starter{cfg: cfg, set: set, ready: readyWait}).start(ctx)
}

// A starter is one attempt to start a sidecar.
type starter struct {
	cfg   *Config
	set   settings
	ready time.Duration // how long to wait for the socket
}

func (s *starter) start(ctx context.Context) (*launched, error) {
	if err := checkDispatched(); err != nil {
		return nil, err
	}
	if err := context.Cause(ctx); err != nil {
		return nil, s.failed("not started", "", err)
	}
	if s.cfg.Mode != InProcess && runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		return nil, &ConfigError{Field: "Mode", Value: s.cfg.Mode.String(),
			Err: fmt.Errorf("on %s only InProcess works: %w", runtime.GOOS, sock.ErrUnsupported)}
	}
	switch s.cfg.Mode {
	case InProcess:
		return s.inProcess(), nil
	case SelfExec:
		cmd, path, err := selfCommand()
		if err != nil {
			return nil, s.failed(os.Args[0], "", err)
		}
		return s.spawn(ctx, cmd, path)
	case Binary:
		path, err := findBinary(s.cfg.Binary)
		if err != nil {
			return nil, err
		}
		return s.spawn(ctx, exec.Command(path), path)
	case Attach:
		return s.attach(ctx)
	}
	return nil, &ConfigError{Field: "Mode", Value: s.cfg.Mode.String(), Err: errors.New("no such mode")}
}

// inProcess runs the sidecar as goroutines behind an in-memory link.
func (s *starter) inProcess() *launched {
	agent, sidecar := newMemoryLinks()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var err error // written before done is closed
	go func() {
		defer close(done)
		err = serveSidecar(ctx, sidecar, s.set, s.cfg.Logger)
	}()
	return &launched{
		link: agent,
		path: "in this process",
		stop: func(stopping context.Context) {
			waitUntil(stopping, done, eofGrace)
			cancel()
			<-done // goroutines cannot be killed; this one ends with its context
		},
		diagnose: func() error {
			if err == nil || errors.Is(err, context.Canceled) {
				return nil
			}
			return fmt.Errorf("mesh: the sidecar in this process ended: %w", err)
		},
	}
}

// attach connects to a sidecar that someone else started and that is nobody's
// to stop. It waits a little for one that is just starting, as happens when a
// supervisor starts agent and sidecar together.
func (s *starter) attach(ctx context.Context) (*launched, error) {
	path := s.cfg.Socket
	waiting, cancel := context.WithTimeoutCause(ctx, s.ready, fmt.Errorf(
		"no sidecar listens there after %v; start one with IPC_SOCKET=%s %s", s.ready, path, binaryName))
	defer cancel()
	conn, err := dialSidecar(waiting, path, nil)
	if errors.Is(err, sock.ErrPath) {
		return nil, &ConfigError{Field: "Socket", Value: path, Err: err}
	}
	if err != nil {
		return nil, s.failed(path, "", err)
	}
	return &launched{link: newLink(conn, s.set.limits()), path: path, stop: func(context.Context) {}, diagnose: func() error { return nil }}, nil
}

// spawn starts a process that listens on a private socket, and connects to it.
func (s *starter) spawn(ctx context.Context, cmd *exec.Cmd, path string) (*launched, error) {
	dir, err := sock.TempDir()
	if err != nil {
		return nil, s.failed(path, "", err)
	}
	set := s.set
	set.Socket = filepath.Join(dir, "s")
	set.Token = newToken()
	set.WatchStdin = true
	if !s.cfg.Logger.Error().Enabled() {
		set.LogLevel = zerolog.Disabled.String() // rather than write what nobody will see
	}
	p, err := s.startProcess(cmd, set)
	if err != nil {
		return nil, s.failed(path, "", errors.Join(err, os.RemoveAll(dir)))
	}
	stop := func(ctx context.Context) {
		p.stop(ctx)
		if err := os.RemoveAll(dir); err != nil {
			s.cfg.Logger.Warn().Err(err).Msg("the sidecar's private directory cannot be removed")
		}
	}
	conn, err := s.connect(ctx, set.Socket, p)
	if err != nil {
		missed, cancel := context.WithCancel(context.Background())
		cancel() // no more grace
		stop(missed)
		return nil, s.failed(path, p.stderr.String(), s.explain(err, p))
	}
	return &launched{
		link: newLink(conn, s.set.limits()), token: set.Token, pid: p.pid(), path: path, stop: stop,
		diagnose: func() error { return p.diagnose(s.cfg.Mode, path) },
	}, nil
}

func (s *starter) startProcess(cmd *exec.Cmd, set settings) (*process, error) {
	env, err := set.environ()
	if err != nil {
		return nil, err
	}
	cmd.Env = os.Environ()
	if s.cfg.Mode == Binary {
		cmd.Env = set.baseEnviron(cmd.Env)
	}
	cmd.Env = append(cmd.Env, env)
	return startProcess(cmd, s.cfg.Logger.With().Stringer("sidecar", s.cfg.Mode).Logger())
}

// errEnded: the process ended before it could be connected to.
var errEnded = errors.New("it ended before it was ready")

func (s *starter) connect(ctx context.Context, path string, p *process) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.ready, fmt.Errorf("it was not ready within %v and was stopped", s.ready))
	defer cancel()
	return dialSidecar(ctx, path, p.done)
}

// explain adds to the reason of a failed start how the process ended and, for
// SelfExec, the mistake that is behind most such failures.
func (s *starter) explain(err error, p *process) error {
	if errors.Is(err, errEnded) {
		err = fmt.Errorf("%w (%v)", err, p.status())
	}
	switch {
	case s.cfg.Mode != SelfExec, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case strings.Contains(p.stderr.String(), ErrNotDispatched.Error()):
		return fmt.Errorf("%w: %w", err, ErrNotDispatched)
	default:
		return fmt.Errorf("%w; does this program's main begin with `if mesh.SidecarMain() { return }`?", err)
	}
}

func (s *starter) failed(path, stderr string, err error) error {
	return &StartError{Mode: s.cfg.Mode, Path: path, Stderr: stderr, Err: err}
}

// dialSidecar connects as soon as somebody listens, until ctx ends, whose cause
// is the reason then, or dead is closed.
func dialSidecar(ctx context.Context, path string, dead <-chan struct{}) (net.Conn, error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for wait := dialFirst; ; wait = min(2*wait, dialMost) {
		select {
		case <-dead:
			return nil, errEnded
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-timer.C:
		}
		conn, err := sock.Dial(ctx, path)
		if err == nil {
			return conn, nil
		}
		if ctx.Err() == nil && !notListening(err) {
			return nil, err
		}
		timer.Reset(wait)
	}
}

// notListening tells that a socket may yet be listened on: it is not there, is
// bound only, or has more callers than it can queue.
func notListening(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EAGAIN)
}

// findBinary finds the sidecar executable. The first place that is set decides:
// going on after a path that somebody set and mistyped would run another
// program than they meant.
func findBinary(configured string) (string, error) {
	env := os.Getenv("SIDECAR_BINARY")
	name := first(configured, env, binaryName)
	path, err := exec.LookPath(name)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err == nil {
		return path, nil
	}
	if why := errors.Unwrap(err); why != nil {
		err = why // without LookPath's repetition of the path
	}
	onPath := "not asked"
	if name == binaryName {
		onPath = "no " + binaryName + " in " + strconv.Quote(os.Getenv("PATH"))
	}
	return "", &ConfigError{Field: "Binary", Value: name, Err: fmt.Errorf(
		"no sidecar executable: %w (Config.Binary: %s; SIDECAR_BINARY: %s; PATH: %s; to install one: %s)",
		err, orNotSet(configured), orNotSet(env), onPath, installCmd)}
}

func orNotSet(path string) string {
	if path == "" {
		return "not set"
	}
	return strconv.Quote(path)
}

// newToken returns the secret that the agent's hello carries: 128 random bits.
func newToken() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// waitUntil waits for done until ctx ends or d has passed, and reports whether
// it happened.
func waitUntil(ctx context.Context, done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-ctx.Done():
	case <-timer.C:
	}
	return false
}
