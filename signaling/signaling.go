// Package signaling is the server that introduces the peers of a mesh to each other. It hands out
// tokens for API keys, keeps one WebSocket per peer, and relays offers, answers and ICE candidates. Messages
// between agents do not pass through it.
//
// A Server is an http.Handler for four paths:
//
//	POST /api/token   API key in X-API-Key (or X-Device-Token) → {"token", "peer_id", "role", "iceServers", "bearer"}
//	GET  /ws          WebSocket; the token as Authorization: Bearer, or as ?token= from who cannot set headers; or no token and
//	                  the key as for /api/token
//	GET  /api/config  {"iceServers": [...]}; those with credentials for holders of a token or key only
//	GET  /healthz     {"status": "ok"}
//
// It can be mounted in any mux, under a prefix with http.StripPrefix. A middleware around it must pass on
// http.Hijacker, or have a method Unwrap. It speaks the protocol of chatixia-mesh's registry, and serves that
// system's sidecars as well as this library's.
//
// Over plain HTTP, tokens and keys are not encrypted: outside of this machine serve it with TLS, and have clients use
// https and wss. A Certificate follows its files when they are renewed.
//
// The limits of Config are about what a Server sees: requests and WebSockets. Connections belong to the http.Server that
// it is mounted in. Give that one ReadHeaderTimeout, a short IdleTimeout and MaxHeaderBytes, and let it serve the Listener
// that Limit returns; the documentation of Listener shows how.
//
// Behind a reverse proxy all clients have the proxy's address. Name it in TrustedProxies, or they share the limits of one.
//
// A peer id belongs to one connection. When another instance of the same peer registers, the one that was
// started later keeps the id, and the other is closed with code 4001.
package signaling

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/local"
	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/pace"
	"github.com/chatixia-ai/mesh/internal/signal"
)

// The defaults of Config's fields.
const (
	DefaultMaxConnections = 10_000 // or what the limit of open files allows
	DefaultMaxPerAddress  = 1000   // or half of MaxConnections, but 100 or more
	DefaultMaxGuesses     = 300
	DefaultMaxMessage     = 256 << 10
	DefaultMaxQueue       = 4 << 20
	DefaultMaxQueueTotal  = 64 * DefaultMaxQueue
	DefaultPingInterval   = 20 * time.Second
	DefaultIdleTimeout    = 10 * time.Second
	DefaultTURNLifetime   = 24 * time.Hour
)

// logBurst is how many records clients may cause at once: those of a thousand that come back after a restart.
const logBurst = 2000

// TokenLifetime is how long a token can be used to open the WebSocket. A connection may outlive its token.
const TokenLifetime = 5 * time.Minute

// The shortest secrets and keys in bytes, unless Config.AllowWeakSecrets is set.
const (
	MinSecret = 32
	MinKey    = 16
)

// exampleSecrets are in the examples of chatixia-mesh, and so publicly known.
var exampleSecrets = []string{"dev-secret-change-me", "change-me-to-a-random-string"}

// Config configures a Server. Outside of development mode Secret and Keys are required; the zero value of
// every other field is useful.
type Config struct {
	// Secret signs the tokens (HMAC-SHA256). It must have at least 32 bytes, all of them random: whoever has
	// a token can try out secrets without asking the server. Servers with the same Secret accept each
	// other's tokens.
	Secret string
	// Keys maps each API key, of at least 16 bytes, to the peer that it belongs to. Several keys may name one
	// peer.
	Keys map[string]Key
	// AllowWeakSecrets accepts a Secret, Keys and a TURNSecret of any length, and logs a warning. It is for
	// a while, until those that were made for another server have been replaced.
	AllowWeakSecrets bool
	// Dev is development mode, without Keys, for programs on one machine whose users all trust each other: the
	// key that a client presents is its peer id (1 to 128 printable bytes), and a client with an empty key gets
	// a random id. The server accepts only clients on loopback addresses that ask for one (Host), no
	// requests with a sign of a proxy, and no web pages from other hosts. A tunnel or a proxy that adds nothing
	// to a request cannot be recognized: never let one lead to such a server. An empty Secret is replaced by a
	// random one.
	Dev bool

	// ICEServers are listed in the response to the token exchange, and at /api/config. Those with
	// credentials are for holders of a token or key.
	ICEServers []ICEServer
	// TURNURL and TURNSecret add a TURN server with ephemeral credentials, as coturn's
	// use-auth-secret expects them: the user is "<unix expiry>:mesh", the password
	// base64(HMAC-SHA1(TURNSecret, user)). They are valid for TURNLifetime, 24 hours by default. TURNSecret
	// must have at least 32 bytes: whoever has credentials can try out secrets.
	TURNURL, TURNSecret string
	TURNLifetime        time.Duration
	// AllowAnonymousTURN lists servers with credentials at /api/config for anyone, and so lets anyone use
	// the TURN servers. The sidecars of chatixia-mesh need it: they ask without a token.
	AllowAnonymousTURN bool

	// TrustedProxies are the addresses of reverse proxies in front of this server. For requests from there the
	// last address in X-Forwarded-For that is not one of them counts as the client's: the proxy must append
	// to that header.
	TrustedProxies []netip.Prefix
	// MaxConnections bounds the number of WebSockets: 10,000 by default, or as many as the limit of open files
	// allows. A connected peer may always replace its own. A peer id has two at most, and a third one only
	// while it is ending.
	MaxConnections int
	// MaxPerAddress bounds the number of WebSockets from one address, or from one IPv6 network of 64 bits:
	// 1,000 by default, or half of MaxConnections if that is less, but 100 or more.
	MaxPerAddress int
	// MaxGuesses bounds the wrong keys and tokens from one address (IPv6: /64) per minute, 300 by default.
	// After as many at once, the address gets status 429, whatever it presents, until some time has passed.
	MaxGuesses int
	// MaxMessage is the maximum length of a message from a peer in bytes, 256 KiB by default. A longer one
	// ends the connection (close code 1009).
	MaxMessage int
	// MaxQueue bounds the memory in bytes of what is queued from other peers for one peer, 4 MiB by default;
	// each sender may fill a sixteenth of it, but may always queue one message. What exceeds it is not
	// relayed, and its sender gets the error "busy". The server's responses to register are bounded by as
	// much; a peer that exceeds that is disconnected (close code 1008). A message costs about a quarter more
	// than its length, and 320 bytes.
	MaxQueue int
	// MaxQueueTotal bounds the memory in bytes of what is queued for all peers, 64 times MaxQueue by default. Each peer
	// may have a 64th of what is free, so that the more is queued the less may be added to one queue, and a
	// hundred full ones leave a fifth for others.
	MaxQueueTotal int
	// PingInterval is the time between two pings, 20 s by default. A peer that sends no pong, does not take a message,
	// or does not complete one that it has begun, within IdleTimeout, 10 s by default, is disconnected.
	PingInterval, IdleTimeout time.Duration

	// Logger receives the log. The zero value logs nothing. Keys, tokens and payloads are never logged. Each peer
	// and each address has 20 lines at once and one more every 5 s; the next line says how many were left out.
	Logger zerolog.Logger
}

// Key describes the peer that an API key belongs to.
type Key struct {
	PeerID string `json:"peer_id"` // 1 to 128 printable bytes
	Role   string `json:"role"`    // goes into the token, not empty; usually "agent"
}

// Server is a signaling server. Its methods may be called concurrently.
type Server struct {
	cfg     Config
	log     zerolog.Logger // of what the operator causes
	outside *logs.Outside  // of what others cause
	secret  []byte
	keys    []hashedKey
	mux     *http.ServeMux
	hub     *hub
	pool    *signal.Pool // of the connections' queues
	// unfinished is of the messages that are being received.
	unfinished *signal.Pool
	guesses    *pace.Sources[netip.Prefix] // wrong keys and tokens
	exposed    sync.Once                   // the warning about plain HTTP
	proxied    sync.Once                   // the warning about a proxy

	mu          sync.Mutex
	closed      bool
	connections map[*connection]struct{} // including those that are ending
	peers       map[string][]*connection // the same, by peer id
	addresses   map[netip.Prefix]int     // how many of them
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
		outside:     logs.NewOutside(cfg.Logger, logBurst),
		secret:      []byte(cfg.Secret),
		keys:        hashKeys(cfg.Keys),
		pool:        signal.NewPool(cfg.MaxQueueTotal),
		unfinished:  signal.NewPool(min(cfg.MaxMessage, math.MaxInt/unfinishedMessages) * unfinishedMessages),
		guesses:     pace.NewSources[netip.Prefix](pace.Rate{Burst: cfg.MaxGuesses, Every: time.Minute / time.Duration(cfg.MaxGuesses)}),
		connections: map[*connection]struct{}{},
		peers:       map[string][]*connection{},
		addresses:   map[netip.Prefix]int{},
	}
	s.hub = newHub(s.outside)
	s.mux = http.NewServeMux()
	s.mux.HandleFunc("POST /api/token", s.handleToken)
	s.mux.HandleFunc("GET /ws", s.handleWebSocket)
	s.mux.HandleFunc("GET /api/config", s.handleConfig)
	s.mux.HandleFunc("GET /healthz", s.handleHealth)
	s.warn()
	return s, nil
}

// warn logs what weakens this server.
func (s *Server) warn() {
	if s.cfg.Dev {
		s.log.Warn().Msg("development mode: any program on this machine can be any peer")
	}
	if s.cfg.AllowWeakSecrets {
		s.log.Warn().Msg("weak secrets are allowed (AllowWeakSecrets): short ones can be guessed, to forge tokens or to be another peer")
	}
	if s.cfg.AllowAnonymousTURN {
		s.log.Warn().Msg("TURN credentials for anyone (AllowAnonymousTURN): any client of this server can use the TURN servers")
	}
}

// ServeHTTP serves the four paths of the package documentation.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Dev {
		if err := local.Check(r); err != nil {
			s.reportRequest(zerolog.WarnLevel, r).Err(err).Msg("request refused")
			writeError(w, http.StatusForbidden, "development mode: "+err.Error())
			return
		}
	} else if r.Header["X-Forwarded-For"] != nil && !s.cfg.trusts(parseAddr(r.RemoteAddr)) {
		s.proxied.Do(func() {
			s.log.Warn().Str("remote", logs.Cut(r.RemoteAddr)).Msg("request with X-Forwarded-For from an address that is not in TrustedProxies; " +
				"if a proxy is there, all of its clients share the limits of one address")
		})
	}
	s.mux.ServeHTTP(w, r)
}

// reportRequest begins a line about a request.
func (s *Server) reportRequest(level zerolog.Level, r *http.Request) *zerolog.Event {
	return s.outside.At(level, s.source(r)).Str("remote", logs.Cut(r.RemoteAddr))
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
	s.hub.close()
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

// writeTooMany responds 429, with the time after which to try again.
func writeTooMany(w http.ResponseWriter, wait time.Duration, text string) {
	w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(wait.Seconds())))))
	writeError(w, http.StatusTooManyRequests, text)
}
