package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/cores"
	"github.com/chatixia-ai/mesh/internal/sock"
)

const (
	// sidecarEnv marks a process that is to be a sidecar, and holds its settings.
	sidecarEnv = "MESH_SIDECAR"
	// agentWait is how long a spawned sidecar waits for its agent. Nobody else
	// would ever end one whose agent died in between.
	agentWait = 10 * time.Second
	// failedPrefix begins the line by which a sidecar process tells its parent
	// why it failed.
	failedPrefix = "mesh: sidecar failed: "
)

// SidecarMain is the sidecar of mode SelfExec. Call it first thing in main, and
// in the TestMain of tests that use that mode:
//
//	if mesh.SidecarMain() {
//		return
//	}
//
// In a process that New started as a sidecar it does that work until the agent
// is gone and returns true: the program must end then. In any other process it
// returns false at once and does nothing.
//
// A sidecar process logs to stderr, which New passes to its Config.Logger, and
// ends on SIGTERM and SIGINT.
func SidecarMain() bool {
	raw := os.Getenv(sidecarEnv)
	if raw == "" {
		return false
	}
	cores.Share()
	if err := sidecarMain(raw, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, failedPrefix+strings.TrimPrefix(err.Error(), "mesh: "))
	}
	return true
}

func sidecarMain(raw string, stderr io.Writer) error {
	var set settings
	if err := json.Unmarshal([]byte(raw), &set); err != nil {
		return fmt.Errorf("mesh: settings of the sidecar in %s: %w", sidecarEnv, err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// When the agent dies its end of stderr goes first. A log line must not end
	// the sidecar before it has sent what is queued and removed its socket.
	signal.Ignore(syscall.SIGPIPE)
	listener, err := sock.Listen(set.Socket)
	if err != nil {
		return fmt.Errorf("mesh: the sidecar cannot listen: %w", err)
	}
	defer func() {
		_ = listener.Close()
		// Its directory was made for it alone, by an agent that may be dead by
		// now. Only an empty directory is removed.
		_ = os.Remove(filepath.Dir(set.Socket))
	}()
	h := host{listener: listener, set: set, log: processLogger(stderr, set.LogLevel), patience: agentWait}
	if set.WatchStdin {
		h.orphaned = stdinClosed()
	}
	return h.run(ctx)
}

// stdinClosed tells when the agent, which holds the other end of this process's
// stdin, has died. Before there is a link, nothing else would. The goroutine that
// waits for it lives as long as the process: a read of stdin cannot be ended.
func stdinClosed() <-chan struct{} {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	return closed
}

// processLogger logs what the agent's logger would take, and warnings for the
// end of stderr in error messages if it takes nothing.
func processLogger(w io.Writer, level string) zerolog.Logger {
	l, err := zerolog.ParseLevel(level)
	if err != nil || l == zerolog.Disabled || l == zerolog.NoLevel {
		l = zerolog.WarnLevel
	}
	return zerolog.New(w).Level(l).With().Timestamp().Logger()
}

// ServeSidecar is the sidecar as a command, for mode Attach and for agents in
// other languages: it listens on Config.Socket, serves the first agent that
// connects, and returns nil when that agent is gone or ctx ends. It listens at
// once, whether or not the signaling server can be reached. Agents of other
// users, and further agents, are refused.
//
// Its error is a *ConfigError for settings that cannot be used, including a
// socket on which somebody else listens, and wraps ErrRefused if the signaling
// server refuses Config.APIKey at the start. What concerns only agents, such as
// Handlers, is ignored.
func ServeSidecar(ctx context.Context, cfg Config) error {
	if err := checkDispatched(); err != nil {
		return err
	}
	cfg.Mode = Attach // the mode in which Socket counts
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	set, err := cfg.settings()
	if err != nil {
		return err
	}
	set.Socket = cfg.Socket
	listener, err := sock.Listen(cfg.Socket)
	if err != nil {
		return &ConfigError{Field: "Socket", Value: cfg.Socket, Err: err}
	}
	defer listener.Close()
	cfg.Logger.Info().Str("socket", cfg.Socket).Msg("waiting for the agent")

	ctx, cancel := context.WithCancel(ctx)
	checked := make(chan error, 1)
	go func() {
		err := checkCredentials(ctx, set)
		if err != nil && ctx.Err() == nil {
			cancel()
		} else {
			err = nil // it was our end that ended the check
		}
		checked <- err
	}()
	h := host{listener: listener, set: set, log: cfg.Logger}
	err = h.run(ctx)
	cancel()
	return errors.Join(<-checked, err)
}

// checkDispatched fails in a process that was started as a sidecar, wherever it
// would be an agent: without it a program that forgot SidecarMain would start
// copies of itself without end.
func checkDispatched() error {
	if os.Getenv(sidecarEnv) != "" {
		return ErrNotDispatched
	}
	return nil
}

// selfCommand is this program once more. On Linux it is taken from /proc, which
// still works when the file was replaced or removed by an update.
func selfCommand() (cmd *exec.Cmd, path string, err error) {
	if path, err = os.Executable(); err != nil {
		return nil, "", err
	}
	cmd = exec.Command(path)
	if runtime.GOOS == "linux" {
		cmd.Path = "/proc/self/exe"
	}
	cmd.Args = []string{os.Args[0]} // for programs that are several by their name
	return cmd, path, nil
}

// environ returns the environment variable that hands the settings on.
func (s *settings) environ() (string, error) {
	raw, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	return sidecarEnv + "=" + string(raw), nil
}

// baseNames are the environment variables of chatixia's own sidecar.
var baseNames = []string{"SIGNALING_URL", "TOKEN_URL", "API_KEY", "IPC_SOCKET",
	"TURN_URL", "TURN_SECRET", "TURN_USERNAME", "TURN_PASSWORD", "ICE_TRANSPORT_POLICY"}

// baseEnviron puts the settings into env as chatixia's own sidecar reads them,
// so that it can be used as the Binary. What has no value is left out: that
// sidecar takes an empty variable for a value.
func (s *settings) baseEnviron(env []string) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(baseNames, name)
	})
	add := func(name, value string) {
		if value != "" {
			env = append(env, name+"="+value)
		}
	}
	add("SIGNALING_URL", s.SignalingURL)
	add("TOKEN_URL", s.TokenURL)
	add("API_KEY", s.APIKey)
	add("IPC_SOCKET", s.Socket)
	if s.RelayOnly {
		add("ICE_TRANSPORT_POLICY", "relay")
	}
	if url, server := s.turnServer(); url != "" {
		add("TURN_URL", url)
		add("TURN_SECRET", s.TURNSecret)
		add("TURN_USERNAME", server.Username)
		add("TURN_PASSWORD", server.Credential)
	}
	return env
}

// turnServer returns the first TURN server: chatixia's sidecar takes only one.
func (s *settings) turnServer() (url string, server ICEServer) {
	for _, server := range s.ICEServers {
		for _, url := range server.URLs {
			if strings.HasPrefix(url, "turn") {
				return url, server
			}
		}
	}
	return "", ICEServer{}
}
