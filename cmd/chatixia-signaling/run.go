package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/dotenv"
	"github.com/chatixia-ai/mesh/signaling"
)

// stopTimeout bounds how long running requests may take when the server stops.
const stopTimeout = 5 * time.Second

// run serves until ctx ends, which is not an error. It writes only to stderr.
func run(ctx context.Context, args []string, environ func(string) (string, bool), stderr io.Writer) error {
	env, dotenvErr := dotenv.Load(".env", environ)
	set, err := parseSettings(args, env.Get, stderr)
	if err != nil {
		return err
	}
	log, err := newLogger(stderr, set.logFormat, set.logLevel)
	if err != nil {
		return err
	}
	for _, f := range strings.Fields(set.given) {
		env.Override(variableOf[f])
	}
	if err := env.Report(log, dotenvErr, aims, set.trustDotEnv); err != nil {
		return err
	}
	server, err := newServer(set, log)
	if err != nil {
		return err
	}
	defer func() { _ = server.Close() }()
	host := set.addr
	if host == "" && set.dev {
		host = "127.0.0.1"
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, set.port))
	if err != nil {
		return fmt.Errorf("%w; choose another port with -port or PORT, another address with -addr", err)
	}
	at := displayHost(host, l.Addr())
	log.Info().Str("url", "http://"+at).
		Str("signaling_url", "ws://"+at+"/ws").
		Str("token_url", "http://"+at+"/api/token").
		Msg("listening")
	return serve(ctx, l, server, log)
}

// serve serves connections of l until ctx ends, and then lets running requests finish within stopTimeout.
func serve(ctx context.Context, l net.Listener, server *signaling.Server, log zerolog.Logger) error {
	// The timeouts are against clients that hold connections by being slow. net/http lifts them when a
	// connection becomes a WebSocket.
	hs := &http.Server{
		Handler:           server,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          stdlog.New(log.With().Str("level", "warn").Logger(), "", 0),
	}
	served := make(chan error, 1)
	go func() { served <- hs.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	log.Info().Msg("stopping")
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	err := hs.Shutdown(stop)
	if errors.Is(err, context.DeadlineExceeded) {
		err = hs.Close()
	}
	<-served
	if err := errors.Join(err, server.Close()); err != nil {
		return fmt.Errorf("stopping: %w", err)
	}
	log.Info().Msg("stopped")
	return nil
}

func newServer(set settings, log zerolog.Logger) (*signaling.Server, error) {
	cfg := signaling.Config{
		Dev:        set.dev,
		Secret:     set.secret,
		TURNURL:    set.turnURL,
		TURNSecret: set.turnSecret,
		Logger:     log,
	}
	switch {
	case set.dev && set.keysFile != "":
		log.Warn().Str("file", set.keysFile).Msg("API keys file not used in development mode")
	case set.dev:
	case set.keysFile == "":
		return nil, errors.New(`no API keys, so no peer could connect: name a file with -keys-file or API_KEYS_FILE, ` +
			`for example {"keys": {"<a long random key>": {"peer_id": "agent-001", "role": "agent"}}}, ` +
			`or start with -dev for peers on this machine only`)
	default:
		keys, err := signaling.LoadKeys(set.keysFile)
		if err != nil {
			return nil, err
		}
		cfg.Keys = keys
	}
	if cfg.Secret == "" && !set.dev {
		cfg.Secret = rand.Text() + rand.Text()
		log.Info().Msg("SIGNALING_SECRET not set; signing tokens with a random secret until the next start")
	}
	server, err := signaling.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("%w (SIGNALING_SECRET, TURN_URL and TURN_SECRET set these fields)", err)
	}
	return server, nil
}

func newLogger(w io.Writer, format, level string) (zerolog.Logger, error) {
	lvl, err := zerolog.ParseLevel(level)
	if err != nil || level == "" {
		return zerolog.Nop(), fmt.Errorf("-log-level: %q is not trace, debug, info, warn, error or disabled; %w", level, errUsage)
	}
	switch format {
	case "text":
		w = zerolog.ConsoleWriter{Out: w, NoColor: true, TimeFormat: time.DateTime}
	case "json":
	default:
		return zerolog.Nop(), fmt.Errorf("-log-format: %q is not text or json; %w", format, errUsage)
	}
	return zerolog.New(w).Level(lvl).With().Timestamp().Logger(), nil
}

// displayHost returns an address that a client on this machine can use.
func displayHost(host string, addr net.Addr) string {
	port := ""
	if a, ok := addr.(*net.TCPAddr); ok {
		port = strconv.Itoa(a.Port)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
