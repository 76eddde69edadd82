package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/chatixia-ai/mesh"
)

const (
	// joinTimeout bounds the way to the signaling server.
	joinTimeout = 10 * time.Second
	// defaultWait is how long a command waits for the peer that it is about.
	defaultWait = 15 * time.Second
	// patience is how long it does so before it says that it does.
	patience = time.Second
)

// joinFlags are the flags of commands that join the mesh. The environment says the rest.
type joinFlags struct {
	signaling, id, keyFile string
	verbose                bool
}

func (f *joinFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.signaling, "signaling", "", "the `URL` of the signaling server (default $SIGNALING_URL, else ws://localhost:8080/ws)")
	c.Flags().StringVar(&f.id, "id", "", "the peer `id` to have: in development mode the id to take, by default a random one; else the one that the API key must be for")
	c.Flags().StringVar(&f.keyFile, "api-key-file", "", "read the API key from this `file` (default $API_KEY)")
	c.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "print the log of the mesh to stderr")
}

// key returns the API key. Without one it is what a server in development mode takes for an id.
func (f *joinFlags) key() (key string, given bool, err error) {
	if f.keyFile != "" {
		text, err := os.ReadFile(f.keyFile)
		if err != nil {
			return "", false, fmt.Errorf("--api-key-file: %w", err)
		}
		if key = strings.TrimRight(string(text), "\r\n"); key == "" {
			return "", false, fmt.Errorf("--api-key-file: %s is empty", f.keyFile)
		}
		return key, true, nil
	}
	if key = os.Getenv("API_KEY"); key != "" {
		return key, true, nil
	}
	return cmp.Or(f.id, "cmd-"+strings.ToLower(rand.Text()[:6])), false, nil
}

// with joins the mesh, does something there, and leaves. The context of do ends with that of the command, and with the
// mesh.
func (f *joinFlags) with(c *cobra.Command, cfg mesh.Config, do func(ctx context.Context, m *mesh.Mesh) error) error {
	m, err := f.join(c, cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(c.Context())
	defer cancel(nil)
	go func() {
		select {
		case <-m.Done():
			cancel(advise(m.Err()))
		case <-ctx.Done():
		}
	}()
	if err = do(ctx, m); err != nil {
		_ = m.Close() // the reason to leave is the error that counts
		for _, over := range []error{mesh.ErrReplaced, mesh.ErrIDInUse} {
			if errors.Is(err, over) {
				return advise(over)
			}
		}
		return err
	}
	return m.Close()
}

func (f *joinFlags) join(c *cobra.Command, cfg mesh.Config) (*mesh.Mesh, error) {
	key, given, err := f.key()
	if err != nil {
		return nil, err
	}
	cfg.SignalingURL, cfg.APIKey, cfg.IfFree, cfg.WaitSignaling = f.signaling, key, true, true
	if f.verbose {
		cfg.Logger = zerolog.New(zerolog.ConsoleWriter{Out: c.ErrOrStderr(), NoColor: true, TimeFormat: time.TimeOnly}).With().Timestamp().Logger()
	}
	ctx, cancel := context.WithTimeoutCause(c.Context(), joinTimeout, errNoServer)
	defer cancel()
	m, err := mesh.New(ctx, cfg)
	if err != nil {
		return nil, adviseKey(advise(err), given)
	}
	if f.id != "" && f.id != m.ID() {
		defer func() { _ = m.Close() }()
		return nil, fmt.Errorf("the API key is for the id %q, not %q; use another key, or leave out --id", m.ID(), f.id)
	}
	return m, nil
}

var errNoServer = fmt.Errorf("not within %v", joinTimeout)

// advise adds to an error of joining what to do.
func advise(err error) error {
	var bad *mesh.ConfigError
	switch {
	case errors.Is(err, errNoServer):
		return fmt.Errorf("%w; name the server with --signaling or SIGNALING_URL, or start one to try things out: mesh dev", err)
	case errors.Is(err, mesh.ErrIDInUse), errors.Is(err, mesh.ErrReplaced):
		return fmt.Errorf("%w; give this command an API key of its own, or in development mode another --id", err)
	case errors.As(err, &bad) && bad.Field == "SignalingURL":
		return usage(fmt.Errorf("--signaling (or SIGNALING_URL): %w", bad.Err))
	}
	return err
}

func adviseKey(err error, given bool) error {
	if errors.Is(err, mesh.ErrRefused) && !given {
		return fmt.Errorf("%w; this server wants an API key: set API_KEY or --api-key-file", err)
	}
	return err
}

// ended returns nil if ctx was ended by a signal, for commands that run until one comes, and otherwise why it ended.
func ended(ctx context.Context) error {
	err := context.Cause(ctx)
	if signal := (signalError{}); errors.As(err, &signal) {
		return nil
	}
	return err
}

// waitPeer blocks until there is a link to a peer, for up to limit, or for as long as ctx allows if that is 0. It says so
// if that takes long.
func waitPeer(ctx context.Context, c *cobra.Command, m *mesh.Mesh, peer string, limit time.Duration) error {
	said := make(chan struct{})
	late := time.AfterFunc(patience, func() {
		defer close(said)
		say(c, "waiting for %s", quote(peer))
	})
	defer func() {
		if !late.Stop() {
			<-said
		}
	}()
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %v; is it running, and on the same mesh? mesh peers shows who is there", limit))
		defer cancel()
	}
	return m.WaitPeer(ctx, peer)
}

// peerFirst refuses arguments of which the first, a peer, is empty, as a variable may be.
func peerFirst(arguments cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := arguments(c, args); err != nil {
			return err
		}
		if args[0] == "" {
			return errors.New("the id of the peer is empty")
		}
		return nil
	}
}

// A target is a service of a peer.
type target struct{ peer, service string }

func (t target) String() string { return t.peer + ":" + t.service }

// failed puts the target before what has happened to a stream, in place of its two ends.
func (t target) failed(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return fmt.Errorf("%s:%s: %w", quote(t.peer), t.service, brief{op.Err})
	}
	return err
}

// parseTarget reads PEER:SERVICE. A service has no colon in its name.
func parseTarget(text string) (target, error) {
	i := strings.LastIndexByte(text, ':')
	if i <= 0 || i == len(text)-1 {
		return target{}, usage(fmt.Errorf("%q is not a peer and a service; want PEER:SERVICE, such as bob:http", text))
	}
	return target{text[:i], text[i+1:]}, nil
}

// dial opens a stream, and waits for the peer for up to limit.
func dial(ctx context.Context, c *cobra.Command, m *mesh.Mesh, t target, limit time.Duration) (*mesh.Conn, error) {
	if err := waitPeer(ctx, c, m, t.peer, limit); err != nil {
		return nil, err
	}
	conn, err := m.Dial(ctx, t.peer, t.service)
	err = t.failed(err)
	switch {
	case errors.Is(err, mesh.ErrInvalid):
		return nil, usage(err)
	case errors.Is(err, mesh.ErrNoService):
		return nil, fmt.Errorf("%w; to offer it, run there: mesh serve %s --to ADDRESS", err, t.service)
	case errors.Is(err, mesh.ErrStreamRefused):
		return nil, fmt.Errorf("%w; it has to allow %s there", err, quote(m.ID()))
	case err != nil:
		return nil, err
	}
	return conn.(*mesh.Conn), nil
}

// A brief error is part of another one, without the name of the library.
type brief struct{ error }

func (e brief) Error() string { return plain(e.error) }
func (e brief) Unwrap() error { return e.error }

// stdio is standard input and output as one end of a stream.
type stdio struct {
	io.Reader
	out io.Writer
}

func (s stdio) Write(b []byte) (int, error) { return s.out.Write(b) }

// CloseWrite ends nothing: the end of the process does.
func (s stdio) CloseWrite() error { return nil }

// Close ends nothing: a read of standard input cannot be ended.
func (s stdio) Close() error { return nil }
