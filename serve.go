package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/cores"
	"github.com/chatixia-ai/mesh/internal/sidecar"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/spawn"
)

// agentWait is how long a spawned sidecar waits for its agent. It ends one whose
// agent died before it connected, where stdin does not tell.
const agentWait = 10 * time.Second

// SidecarMain runs the sidecar of mode SelfExec. Call it first thing in main, and
// in the TestMain of tests that use that mode:
//
//	if mesh.SidecarMain() {
//		return
//	}
//
// In a process that New started as a sidecar it blocks until the agent is gone
// and returns true: the program must end then. In any other process it does
// nothing and returns false.
//
// A sidecar process logs to stderr, which New passes to its Config.Logger, and
// ends on SIGTERM and SIGINT.
func SidecarMain() bool {
	raw := os.Getenv(sidecar.Variable)
	if raw == "" {
		return false
	}
	cores.Share()
	if err := sidecarMain(raw, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, failure(err))
	}
	return true
}

func sidecarMain(raw string, stderr io.Writer) error {
	set, err := sidecar.ParseSettings(raw)
	if err != nil {
		return err
	}
	ctx, stop := spawn.Signals(context.Background())
	defer stop()
	listener, err := sock.Listen(set.Socket)
	if err != nil {
		return fmt.Errorf("it cannot listen: %w", err)
	}
	defer func() {
		_ = listener.Close()
		// Its directory was made for it alone, by an agent that may be dead by now.
		_ = sock.RemoveDir(set.Socket)
	}()
	h := sidecar.Host{Listener: listener, Settings: set, Log: processLogger(stderr, set.LogLevel), Patience: agentWait}
	if set.WatchStdin {
		h.Orphaned = orphaned(ctx)
	}
	return h.Run(ctx)
}

// orphaned returns a channel that is closed when the process that started this one is
// gone: its end of stdin is closed, or, since another process may hold a copy of that,
// it has ended itself. The goroutines live as long as this process may.
func orphaned(ctx context.Context) <-chan struct{} {
	parent, gone := os.Getppid(), make(chan struct{})
	end := sync.OnceFunc(func() { close(gone) })
	go func() {
		<-spawn.StdinClosed()
		end()
	}()
	go func() {
		if sock.WaitProcess(ctx, parent) == nil {
			end()
		}
	}()
	return gone
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

// ServeSidecar runs a sidecar for mode Attach and for agents in other languages:
// it listens on Config.Socket, serves the first agent that connects, and returns
// nil when that agent is gone or ctx ends. It listens at once, whether or not
// the signaling server can be reached. Agents of other users, and further
// agents, are refused.
//
// Of cfg it reads SignalingURL, TokenURL, APIKey, Socket, Network, Identity,
// Limits.MaxMessage, Limits.MaxDepth and Logger. The other fields concern agents
// and are ignored.
//
// Its error is a *ConfigError for settings that cannot be used, including a
// socket on which another process listens; or it wraps ErrRefused or
// ErrMisconfigured, if the first exchange with the signaling server shows that, or
// ErrReplaced.
func ServeSidecar(ctx context.Context, cfg Config) error {
	if err := checkSidecarMain(); err != nil {
		return err
	}
	cfg, err := Config{
		Mode:         Attach, // the mode in which Socket counts
		SignalingURL: cfg.SignalingURL, TokenURL: cfg.TokenURL, APIKey: cfg.APIKey, Socket: cfg.Socket,
		Network: cfg.Network, Identity: cfg.Identity, Logger: cfg.Logger,
		Limits:       Limits{MaxMessage: cfg.Limits.MaxMessage, MaxDepth: cfg.Limits.MaxDepth},
		DrainTimeout: defaultDrainTimeout, // of agents, whatever the environment says
	}.withDefaults()
	if err != nil {
		return err
	}
	set, err := cfg.settings()
	if err != nil {
		return err
	}
	set.Socket = cfg.Socket
	set.Signaling.Started = time.Time{} // when its agent comes
	listener, err := sock.Listen(cfg.Socket)
	if err != nil {
		return &ConfigError{Field: "Socket", Value: cfg.Socket, Err: err}
	}
	cfg.Logger.Info().Str("socket", cfg.Socket).Msg("waiting for the agent")

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	checked := make(chan error, 1)
	go func() { // ends before ServeSidecar does
		err := sidecar.CheckCredentials(ctx, set)
		if ctx.Err() != nil {
			err = nil // the check was cut short by the end of ctx
		} else if err != nil {
			cancel()
		}
		checked <- err
	}()
	h := sidecar.Host{Listener: listener, Settings: set, Log: cfg.Logger}
	err = h.Run(ctx)
	cancel()
	return errors.Join(public(<-checked), public(err))
}

// public returns the public error for one of the sidecar.
func public(err error) error {
	var refused *signal.RefusedError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return because(ErrRefused, errors.New(refused.Detail))
	case errors.Is(err, signal.ErrMisconfigured):
		return because(ErrMisconfigured, err)
	case errors.Is(err, signal.ErrReplaced):
		return ErrReplaced
	case errors.Is(err, signal.ErrInUse):
		return ErrIDInUse
	}
	return fmt.Errorf("mesh: sidecar: %w", inner{err})
}

// checkSidecarMain fails in a process that was started as a sidecar, where it is
// about to be an agent: otherwise a program that forgot SidecarMain would start
// copies of itself without end.
func checkSidecarMain() error {
	if os.Getenv(sidecar.Variable) != "" {
		return ErrNoSidecarMain
	}
	return nil
}
