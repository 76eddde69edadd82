package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
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
	certificate, err := newCertificate(set, log)
	if err != nil {
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
	s := ""
	if certificate != nil {
		s = "s"
	} else if !set.dev && !isLoopback(l.Addr()) {
		log.Warn().Msg("keys and tokens travel unencrypted, over plain HTTP; use -tls-cert and -tls-key, or -addr 127.0.0.1 behind a proxy with TLS")
	}
	at := displayHost(host, l.Addr())
	log.Info().Str("url", "http"+s+"://"+at).
		Str("signaling_url", "ws"+s+"://"+at+"/ws").
		Str("token_url", "http"+s+"://"+at+"/api/token").
		Msg("listening")
	return serve(ctx, server.Limit(l), server, certificate, log)
}

// newCertificate returns nil if no certificate is named.
func newCertificate(set settings, log zerolog.Logger) (*signaling.Certificate, error) {
	if set.tlsCert == "" {
		return nil, nil
	}
	c, err := signaling.LoadCertificate(set.tlsCert, set.tlsKey, log)
	if err != nil {
		return nil, fmt.Errorf("%w (-tls-cert and -tls-key name the files)", err)
	}
	return c, nil
}

// isLoopback reports whether only this machine reaches addr.
func isLoopback(addr net.Addr) bool {
	a, ok := addr.(*net.TCPAddr)
	return ok && a.IP.IsLoopback()
}

// serve serves connections of l until ctx ends, and then lets running requests finish within stopTimeout. Without a
// certificate it serves plain HTTP.
func serve(ctx context.Context, l *signaling.Listener, server *signaling.Server, certificate *signaling.Certificate, log zerolog.Logger) error {
	hs := newHTTPServer(l, server, log)
	served := make(chan error, 1)
	go func() {
		if certificate == nil {
			served <- hs.Serve(l)
			return
		}
		hs.TLSConfig = &tls.Config{GetCertificate: certificate.Get}
		served <- hs.ServeTLS(l, "", "")
	}()
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

// newHTTPServer returns a server with limits for clients that hold connections by being slow, or silent. net/http lifts
// them when a connection becomes a WebSocket.
func newHTTPServer(l *signaling.Listener, server *signaling.Server, log zerolog.Logger) *http.Server {
	// Any client can cause errors, for example by a TLS handshake that fails.
	errorLog := log.Sample(&zerolog.BurstSampler{Burst: 10, Period: time.Minute}).With().Str("level", "warn").Logger()
	hs := &http.Server{
		Handler:           server,
		ConnState:         l.ConnState,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       10 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          stdlog.New(shortLines{errorLog}, "", 0),
		Protocols:         new(http.Protocols),
	}
	hs.Protocols.SetHTTP1(true) // WebSockets need no more, and HTTP/2 would multiply what a connection may ask for
	return hs
}

// shortLines is a log of texts that outsiders cause, and so may make long.
type shortLines struct{ log zerolog.Logger }

func (s shortLines) Write(text []byte) (int, error) {
	_, err := s.log.Write(text[:min(len(text), 300)])
	return len(text), err
}

// keysExample is what a file of API keys looks like.
const keysExample = `{"keys": {"<a long random key>": {"peer_id": "agent-001", "role": "agent"}}}`

func newServer(set settings, log zerolog.Logger) (*signaling.Server, error) {
	proxies, err := set.proxies()
	if err != nil {
		return nil, err
	}
	cfg := signaling.Config{
		Dev:                set.dev,
		Secret:             set.secret,
		AllowWeakSecrets:   set.allow.weakSecrets,
		TURNURL:            set.turnURL,
		TURNSecret:         set.turnSecret,
		AllowAnonymousTURN: set.allow.anonymousTURN,
		TrustedProxies:     proxies,
		MaxConnections:     set.limits.connections,
		MaxPerAddress:      set.limits.perAddress,
		MaxGuesses:         set.limits.guesses,
		MaxQueue:           set.limits.queue,
		MaxQueueTotal:      set.limits.queueTotal,
		Logger:             log,
	}
	switch {
	case set.dev && set.keysFile != "":
		log.Warn().Str("file", set.keysFile).Msg("API keys file not used in development mode")
	case set.dev:
	case set.keysFile == "":
		return nil, errors.New("no API keys, so no peer could connect: name a file with -keys-file or API_KEYS_FILE, " +
			"for example " + keysExample + ", or start with -dev for peers on this machine only")
	default:
		keys, err := signaling.LoadKeys(set.keysFile)
		if err != nil {
			return nil, fmt.Errorf("%w; -keys-file (or API_KEYS_FILE) names a file such as %s", err, keysExample)
		}
		cfg.Keys = keys
	}
	if cfg.Secret == "" && !set.dev {
		cfg.Secret = rand.Text() + rand.Text()
		log.Info().Msg("SIGNALING_SECRET not set; signing tokens with a random secret until the next start")
	}
	server, err := signaling.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("%w (SIGNALING_SECRET, API_KEYS_FILE, TURN_URL and TURN_SECRET set these fields; "+
			"-allow-weak-secrets sets AllowWeakSecrets, -trusted-proxies TrustedProxies)", err)
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
