// Package signaling is the server that introduces the peers of a mesh to each other. It hands out
// tokens for API keys, keeps one WebSocket per peer, and relays offers, answers and ICE candidates. Messages
// between agents do not pass through it.
//
// A Server is an http.Handler for four paths:
//
//	POST /api/token   API key in X-API-Key (or X-Device-Token) → {"token", "peer_id", "role", "iceServers", "bearer"}
//	GET  /ws          WebSocket; the token as Authorization: Bearer, or as ?token= from who cannot set headers
//	GET  /api/config  {"iceServers": [...]}
//	GET  /healthz     {"status": "ok"}
//
// It can be mounted in any mux, under a prefix with http.StripPrefix. A middleware around it must pass on
// http.Hijacker, or have a method Unwrap. It speaks the protocol of chatixia-mesh's registry, and serves that
// system's sidecars as well as this library's.
//
// Over plain HTTP, tokens and keys are not encrypted: outside of a trusted network serve it with TLS
// (http.Server.ServeTLS, or a reverse proxy), and have clients use https and wss.
//
// A peer id belongs to one connection. When another instance of the same peer registers, the one that was
// started later keeps the id, and the other is closed with code 4001.
package signaling

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// The defaults of Config's fields.
const (
	DefaultMaxConnections = 10_000
	DefaultMaxMessage     = 256 << 10
	DefaultMaxQueue       = 4 << 20
	DefaultPingInterval   = 20 * time.Second
	DefaultIdleTimeout    = 10 * time.Second
	DefaultTURNLifetime   = 24 * time.Hour
)

// TokenLifetime is how long a token can be used to open the WebSocket. A connection may outlive its token.
const TokenLifetime = 5 * time.Minute

// exampleSecrets are in the examples of chatixia-mesh, and so publicly known.
var exampleSecrets = []string{"dev-secret-change-me", "change-me-to-a-random-string"}

// Config configures a Server. Outside of development mode Secret and Keys are required; the zero value of
// every other field is useful.
type Config struct {
	// Secret signs the tokens (HMAC-SHA256; RFC 7518 section 3.2 asks for at least 32 bytes, and less is
	// logged as a warning). Servers with the same Secret accept each other's tokens.
	Secret string
	// Keys maps each API key to the peer that it belongs to. Several keys may name one peer.
	Keys map[string]Key
	// Dev is development mode, without Keys: the key that a client presents is its peer id (1 to 128
	// printable bytes), and a client with an empty key gets a random id. The server accepts only clients on
	// loopback addresses, no requests that a proxy has forwarded, and no web pages from other hosts. An
	// empty Secret is replaced by a random one.
	Dev bool

	// ICEServers are listed at /api/config, with their credentials: anyone who can reach the server can
	// read them.
	ICEServers []ICEServer
	// TURNURL and TURNSecret add a TURN server with ephemeral credentials, as coturn's
	// use-auth-secret expects them: the user is "<unix expiry>:mesh", the password
	// base64(HMAC-SHA1(TURNSecret, user)). They are valid for TURNLifetime, 24 hours by default.
	TURNURL, TURNSecret string
	TURNLifetime        time.Duration

	// MaxConnections bounds the number of WebSockets, 10,000 by default. A connected peer may always
	// replace its own.
	MaxConnections int
	// MaxMessage is the maximum length of a message from a peer in bytes, 256 KiB by default. A longer one
	// ends the connection (close code 1009).
	MaxMessage int
	// MaxQueue bounds the bytes queued from other peers for one peer, 4 MiB by default; each sender may
	// fill a sixteenth of it, but may always queue one message. What exceeds it is not relayed, and its
	// sender gets the error "busy". The server's responses to register are bounded by as much; a peer
	// that exceeds that is disconnected (close code 1008).
	MaxQueue int
	// PingInterval is the time between two pings, 20 s by default. A peer that sends no pong, or does not
	// take a message, within IdleTimeout, 10 s by default, is disconnected.
	PingInterval, IdleTimeout time.Duration

	// Logger receives the log. The zero value logs nothing. Keys, tokens and payloads are never logged.
	Logger zerolog.Logger
}

// Key describes the peer that an API key belongs to.
type Key struct {
	PeerID string `json:"peer_id"` // 1 to 128 printable bytes
	Role   string `json:"role"`    // goes into the token, not empty; usually "agent"
}

// Server is a signaling server. Its methods may be called concurrently.
type Server struct {
	cfg    Config
	log    zerolog.Logger
	secret []byte
	keys   []hashedKey
	mux    *http.ServeMux
	hub    *hub

	mu          sync.Mutex
	closed      bool
	connections map[*connection]struct{} // including those that are ending
	wg          sync.WaitGroup           // one per connection
}

// New returns a server that is ready to be mounted, or an error that names the field of cfg. Close it after the
// http.Server that it is mounted in: http.Server.Shutdown does not end WebSockets.
func New(cfg Config) (*Server, error) {
	if err := cfg.fill(); err != nil {
		return nil, fmt.Errorf("signaling: %w", err)
	}
	s := &Server{
		cfg:         cfg,
		log:         cfg.Logger,
		secret:      []byte(cfg.Secret),
		keys:        hashKeys(cfg.Keys),
		hub:         newHub(cfg.Logger),
		connections: map[*connection]struct{}{},
	}
	s.mux = http.NewServeMux()
	s.mux.HandleFunc("POST /api/token", s.handleToken)
	s.mux.HandleFunc("GET /ws", s.handleWebSocket)
	s.mux.HandleFunc("GET /api/config", s.handleConfig)
	s.mux.HandleFunc("GET /healthz", s.handleHealth)
	if cfg.Dev {
		s.log.Warn().Msg("development mode: any program on this machine can be any peer")
	} else if len(cfg.Secret) < 32 {
		s.log.Warn().Int("bytes", len(cfg.Secret)).Msg("secret shorter than 32 bytes; it can be guessed to forge tokens")
	}
	return s, nil
}

// fill sets the defaults, and returns an error about the first field that cannot be used.
func (cfg *Config) fill() error {
	if err := cfg.fillSecrets(); err != nil {
		return err
	}
	for _, f := range []struct {
		name  string
		value *int
		def   int
	}{
		{"MaxConnections", &cfg.MaxConnections, DefaultMaxConnections},
		{"MaxMessage", &cfg.MaxMessage, DefaultMaxMessage},
		{"MaxQueue", &cfg.MaxQueue, DefaultMaxQueue},
	} {
		if err := fillDefault(f.name, f.value, f.def); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
	}{
		{"PingInterval", &cfg.PingInterval, DefaultPingInterval},
		{"IdleTimeout", &cfg.IdleTimeout, DefaultIdleTimeout},
		{"TURNLifetime", &cfg.TURNLifetime, DefaultTURNLifetime},
	} {
		if err := fillDefault(f.name, f.value, f.def); err != nil {
			return err
		}
	}
	return cfg.checkICE()
}

// invalid returns an error about one field.
func invalid(field, text string) error { return errors.New(field + ": " + text) }

func fillDefault[T int | time.Duration](name string, value *T, def T) error {
	if *value < 0 {
		return fmt.Errorf("%s: %v is negative", name, *value)
	}
	if *value == 0 {
		*value = def
	}
	return nil
}

func (cfg *Config) fillSecrets() error {
	if cfg.Dev {
		if len(cfg.Keys) > 0 {
			return invalid("Keys", "development mode uses none; leave either Keys or Dev unset")
		}
		if cfg.Secret == "" {
			cfg.Secret = rand.Text() + rand.Text()
		}
		return nil
	}
	if len(cfg.Keys) == 0 {
		return invalid("Keys", "empty, so that no peer could connect; set Keys, or Dev for development on this machine")
	}
	for key, k := range cfg.Keys {
		if err := checkKey(key, k); err != nil {
			return invalid("Keys", err.Error())
		}
	}
	if cfg.Secret == "" {
		return invalid("Secret", "empty; set at least 32 random bytes, for example two crypto/rand.Text()")
	}
	for _, s := range exampleSecrets {
		if cfg.Secret == s {
			return invalid("Secret", "from a published example, so that anyone can sign tokens; set at least 32 random bytes")
		}
	}
	return nil
}

func (cfg *Config) checkICE() error {
	for i, s := range cfg.ICEServers {
		if err := signal.ICEServer(s).Check(); err != nil {
			return fmt.Errorf("ICEServers[%d]: %w", i, err)
		}
	}
	switch {
	case cfg.TURNURL == "" && cfg.TURNSecret == "":
		return nil
	case cfg.TURNURL == "":
		return invalid("TURNURL", "empty, but TURNSecret is set")
	case cfg.TURNSecret == "":
		return invalid("TURNSecret", "empty, but TURNURL is set; a TURN server with fixed credentials goes into ICEServers")
	case !strings.HasPrefix(cfg.TURNURL, "turn:") && !strings.HasPrefix(cfg.TURNURL, "turns:"):
		return invalid("TURNURL", fmt.Sprintf("%q must start with turn: or turns:", cfg.TURNURL))
	}
	return nil
}

// ServeHTTP serves the four paths of the package documentation.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Dev {
		if err := checkLocal(r); err != nil {
			s.log.Warn().Str("remote", r.RemoteAddr).Err(err).Msg("request refused")
			writeError(w, http.StatusForbidden, "development mode: "+err.Error())
			return
		}
	}
	s.mux.ServeHTTP(w, r)
}

func (s *Server) handleHealth(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// Close refuses new connections, ends all others with close code 1001, and blocks until they are gone: about a
// second with clients that do not respond. It may be called several times. The error is always nil.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	for c := range s.connections {
		c.end(websocket.StatusGoingAway, errClosed.Error(), nil)
	}
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store") // tokens and credentials
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone if that fails
}

func writeError(w http.ResponseWriter, status int, text string) {
	writeJSON(w, status, map[string]string{"error": text})
}
