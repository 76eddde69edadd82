package mesh

import (
	"cmp"
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
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/link"
	"github.com/chatixia-ai/mesh/internal/sidecar"
	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/spawn"
)

const (
	// dialFirst and dialMost are the waits between attempts to connect to a
	// sidecar that is starting.
	dialFirst, dialMost = time.Millisecond, 100 * time.Millisecond
	// endGrace is how long a sidecar may take to end after its link was closed.
	endGrace = 2 * time.Second

	binaryName = "chatixia-sidecar"
	installCmd = "go install github.com/chatixia-ai/mesh/cmd/chatixia-sidecar@latest"

	// failedPrefix begins the line by which a sidecar process tells its parent
	// why it failed, and lackingPrefix what follows it if that was a shortage.
	failedPrefix  = "mesh: sidecar failed: "
	lackingPrefix = "the host lacks something: "
)

// launched is one started sidecar and the link to it. Nothing else of this
// package knows where a sidecar runs.
type launched struct {
	link  *link.Link
	token string // for hello; "" where the sidecar wants none
	pid   int    // 0 where there is no process of ours
	path  string // the executable or the socket, for messages
	// Streams come by the door, or else by connections to the socket.
	door   *sidecar.Door
	socket string
	// liveness is how to find out that it hangs.
	liveness liveness

	// stop, called after link was closed or to give up, blocks until the sidecar
	// has ended by itself, or makes it end when ctx ends or its grace is over,
	// within 5 s in all. When it returns nothing of the sidecar is left. It may
	// be called any number of times, from any goroutine.
	stop func(ctx context.Context)

	// diagnose returns, after stop, what was wrong with the way the sidecar ended:
	// its exit status or signal and the end of its stderr. nil if nothing was.
	diagnose func() error
}

// launch starts a sidecar, or for Attach finds the one that runs, and connects
// to it. ctx bounds the start and nothing after it. Errors are *StartError,
// *ConfigError and ErrNoSidecarMain.
func launch(ctx context.Context, cfg *Config, set sidecar.Settings) (*launched, error) {
	l := launcher{cfg: cfg, set: set}
	if err := checkSidecarMain(); err != nil {
		return nil, err
	}
	if err := context.Cause(ctx); err != nil {
		path := ""
		if cfg.Mode == Attach {
			path = cfg.Socket
		}
		return nil, l.failed(path, "", fmt.Errorf("not begun: %w", err))
	}
	if cfg.Mode != InProcess && runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		return nil, &ConfigError{Field: "Mode", Value: cfg.Mode.String(),
			Err: fmt.Errorf("on %s only InProcess works: %w", runtime.GOOS, sock.ErrUnsupported)}
	}
	switch cfg.Mode {
	case InProcess:
		return l.inProcess(), nil
	case SelfExec:
		cmd, path, err := selfCommand()
		if err != nil {
			return nil, l.failed(os.Args[0], "", err)
		}
		return l.spawn(ctx, cmd, path)
	case Binary:
		path, err := findBinary(cfg.Binary)
		if err != nil {
			return nil, err
		}
		return l.spawn(ctx, exec.Command(path), path)
	case Attach:
		return l.attach(ctx)
	}
	return nil, &ConfigError{Field: "Mode", Value: cfg.Mode.String(), Err: errors.New("no such mode")}
}

// A launcher is one attempt to start a sidecar.
type launcher struct {
	cfg *Config
	set sidecar.Settings
}

// inProcess runs the sidecar as goroutines behind a link in memory.
func (l *launcher) inProcess() *launched {
	agent, far := link.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	door := &sidecar.Door{}
	var err error // written before done is closed
	go func() {   // stop waits for it
		defer close(done)
		err = sidecar.Serve(ctx, far, door, l.set, l.cfg.Logger)
	}()
	return &launched{
		link: agent,
		door: door,
		path: "in this process",
		stop: func(stopping context.Context) {
			grace, over := context.WithTimeout(stopping, endGrace)
			defer over()
			select {
			case <-done:
			case <-grace.Done():
			}
			cancel()
			<-done // goroutines cannot be killed; this one ends with its context
		},
		diagnose: func() error {
			if err == nil || errors.Is(err, context.Canceled) {
				return nil
			}
			return fmt.Errorf("the sidecar in this process ended: %w", err)
		},
	}
}

// attach connects to a sidecar that is running already and that is not ours to
// stop. It waits a little for one that is just starting, as happens when a
// supervisor starts agent and sidecar together.
func (l *launcher) attach(ctx context.Context) (*launched, error) {
	path := l.cfg.Socket
	conn, err := dialSidecar(ctx, path, nil)
	switch {
	case errors.Is(err, sock.ErrPath):
		return nil, &ConfigError{Field: "Socket", Value: path, Err: err}
	case err != nil && ctx.Err() != nil:
		return nil, l.failed(path, "", fmt.Errorf("no sidecar listens there: %w; start one with IPC_SOCKET=%s %s", err, path, binaryName))
	case err != nil:
		return nil, l.failed(path, "", err)
	}
	return &launched{
		link: link.New(conn, nil, l.set.Limits), path: path, socket: path, liveness: processLiveness,
		stop: func(context.Context) {}, diagnose: func() error { return nil },
	}, nil
}

// spawn starts a process that listens on a private socket, and connects to it.
func (l *launcher) spawn(ctx context.Context, cmd *exec.Cmd, path string) (*launched, error) {
	dir, err := sock.NewDir()
	if err != nil {
		return nil, l.failed(path, "", shortage{err})
	}
	set := l.set
	set.Socket = dir.Socket()
	set.Token = newToken()
	set.WatchStdin = true
	if !l.cfg.Logger.Error().Enabled() {
		set.LogLevel = zerolog.Disabled.String() // the logger would drop it
	}
	p, err := l.startProcess(cmd, set)
	if err != nil {
		if isShortage(err) {
			err = shortage{err}
		}
		return nil, l.failed(path, "", errors.Join(err, dir.Remove()))
	}
	stop := func(ctx context.Context) {
		p.Stop(ctx)
		if err := dir.Remove(); err != nil {
			l.cfg.Logger.Warn().Err(err).Msg("private directory of the sidecar not removed")
		}
	}
	conn, err := dialSidecar(ctx, set.Socket, p.Done())
	if err != nil {
		over, cancel := context.WithCancel(context.Background())
		cancel() // no grace
		stop(over)
		err, stderr := l.explain(err, p), p.Stderr()
		if errors.Is(err, ErrNoSidecarMain) || failureIn(stderr) != nil {
			stderr = "" // it says the same
		}
		return nil, l.failed(path, stderr, err)
	}
	return &launched{
		link: link.New(conn, nil, l.set.Limits), token: set.Token, pid: p.PID(), path: path, socket: set.Socket, liveness: processLiveness, stop: stop,
		diagnose: func() error { return l.diagnose(p, path) },
	}, nil
}

// A shortage is why a sidecar could not be started, or ended before it was ready: the host
// lacks something that it may have again.
type shortage struct{ error }

func (s shortage) Unwrap() error { return s.error }

// isShortage reports whether a system call failed for want of descriptors, processes,
// memory or space.
func isShortage(err error) bool {
	return slices.ContainsFunc([]error{syscall.EMFILE, syscall.ENFILE, syscall.EAGAIN, syscall.ENOMEM, syscall.ENOSPC, syscall.EDQUOT},
		func(errno error) bool { return errors.Is(err, errno) })
}

// failure is the line by which a sidecar process says why it failed.
func failure(err error) string {
	if isShortage(err) {
		return failedPrefix + lackingPrefix + plain(err)
	}
	return failedPrefix + plain(err)
}

// starved is how the lines begin that Go's runtime writes when it ends a process that gets
// no thread, or no memory.
var starved = []string{
	"runtime: failed to create new OS thread", "runtime/cgo: pthread_create failed",
	"fatal error: runtime: out of memory", "fatal error: runtime: cannot allocate memory",
}

// failureIn returns why a sidecar process has failed by what it has written to stderr, nil
// if it has not said. It is a shortage if it was one for the sidecar.
func failureIn(stderr string) error {
	_, said, failed := strings.Cut(stderr, failedPrefix)
	if !failed {
		for line := range strings.Lines(stderr) {
			if slices.ContainsFunc(starved, func(s string) bool { return strings.HasPrefix(line, s) }) {
				return shortage{errors.New(strings.TrimSpace(line))}
			}
		}
		return nil
	}
	said, _, _ = strings.Cut(said, "\n")
	if strings.HasPrefix(said, lackingPrefix) {
		return shortage{errors.New(said)}
	}
	return errors.New(said)
}

// startProcess starts cmd with the settings in its environment.
func (l *launcher) startProcess(cmd *exec.Cmd, set sidecar.Settings) (*spawn.Process, error) {
	env, err := set.Environ()
	if err != nil {
		return nil, err
	}
	cmd.Env = os.Environ()
	if l.cfg.Mode == Binary {
		cmd.Env = set.BaseEnviron(cmd.Env)
	}
	cmd.Env = append(cmd.Env, env)
	return spawn.Start(cmd, l.cfg.Logger.With().Stringer("sidecar", l.cfg.Mode).Logger())
}

// errEnded means that the process ended before it could be connected to.
var errEnded = errors.New("it ended before it was ready")

// explain adds to the reason of a failed start how the process ended and, for
// SelfExec, the most likely mistake.
func (l *launcher) explain(err error, p *spawn.Process) error {
	said := failureIn(p.Stderr())
	switch {
	case errors.Is(err, errEnded) && said != nil:
		return fmt.Errorf("%w: %w", err, said)
	case errors.Is(err, errEnded):
		err = fmt.Errorf("%w (%v)", err, p.End().Status)
	case !errors.Is(err, context.Canceled):
		err = fmt.Errorf("it did not listen in time and was stopped: %w", err)
	}
	switch {
	case l.cfg.Mode != SelfExec, errors.Is(err, context.Canceled):
		return err
	case strings.Contains(p.Stderr(), ErrNoSidecarMain.Error()):
		return fmt.Errorf("%w: %w", err, inner{ErrNoSidecarMain})
	default:
		return fmt.Errorf("%w; does this program's main begin with `if mesh.SidecarMain() { return }`?", err)
	}
}

// diagnose returns what was wrong with the end of a process that was not expected
// to end.
func (l *launcher) diagnose(p *spawn.Process, path string) error {
	end := p.End()
	what := fmt.Sprintf("the sidecar (mode %v, %s, pid %d) ended", l.cfg.Mode, path, p.PID())
	if end.Err == nil {
		// SidecarMain cannot set a status, so what it says is all there is.
		said := failureIn(end.Stderr)
		if said == nil {
			return nil
		}
		return fmt.Errorf("%s: %w", what, said)
	}
	err := fmt.Errorf("%s: %w", what, end.Err)
	if end.Killed {
		err = fmt.Errorf("%s: it ignored the end of its link and SIGTERM, and was killed (%w)", what, end.Err)
	}
	if end.Stderr != "" {
		err = fmt.Errorf("%w\nits stderr ended with:\n%s", err, end.Stderr)
	}
	return err
}

func (l *launcher) failed(path, stderr string, err error) error {
	return &StartError{Mode: l.cfg.Mode, Path: path, Stderr: stderr, Err: err}
}

// dialSidecar connects to a socket as soon as a process listens on it. The error
// is the cause of ctx if that ends before, and errEnded if dead is closed. It
// has to poll: there is no portable notice of a process that begins to listen.
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

// notListening reports whether another attempt to connect may succeed: the
// socket is not there yet, no process listens on it yet, or its queue of
// connections is full.
func notListening(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EAGAIN)
}

// selfCommand returns the command that runs this program once more. On Linux it
// is taken from /proc, which still works when the file was replaced or removed by
// an update.
func selfCommand() (cmd *exec.Cmd, path string, err error) {
	if path, err = os.Executable(); err != nil {
		return nil, "", err
	}
	cmd = exec.Command(path)
	if runtime.GOOS == "linux" {
		cmd.Path = "/proc/self/exe"
	}
	cmd.Args = []string{os.Args[0]} // for programs that do different things by name
	return cmd, path, nil
}

// findBinary finds the sidecar executable. The first place that is set decides: if
// a mistyped path were passed over, another program than was meant would run.
func findBinary(configured string) (string, error) {
	env := os.Getenv("SIDECAR_BINARY")
	name := cmp.Or(configured, env, binaryName)
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
