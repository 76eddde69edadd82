package mesh

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// A Mode says where the sidecar runs. What an application sees is the same in
// every mode.
type Mode int

const (
	// InProcess runs the sidecar as goroutines of this process. It needs no
	// socket and no second process, and works on every system.
	InProcess Mode = iota
	// SelfExec runs it as a forked copy of this program, which must call
	// SidecarMain first thing in main. A crash of the WebRTC side does not take
	// the application with it.
	SelfExec
	// Binary runs a sidecar executable: Config.Binary, else the environment
	// variable SIDECAR_BINARY, else chatixia-sidecar on the PATH.
	Binary
	// Attach uses a sidecar that someone else started and that listens on
	// Config.Socket.
	Attach
)

var modeNames = [...]string{"InProcess", "SelfExec", "Binary", "Attach"}

// String returns the mode's name.
func (m Mode) String() string {
	if m < 0 || int(m) >= len(modeNames) {
		return "Mode(" + strconv.Itoa(int(m)) + ")"
	}
	return modeNames[m]
}

// An ICEServer is a STUN or TURN server, as in RTCIceServer of the WebRTC
// specification.
type ICEServer = signal.ICEServer

// Config is what New needs to know. The zero value is usable: an in-process
// sidecar that takes its settings from the environment. An empty environment
// variable counts as unset.
type Config struct {
	// Mode says where the sidecar runs; InProcess by default.
	Mode Mode

	// SignalingURL is the WebSocket of the signaling server, ws: or wss:.
	// Default: $SIGNALING_URL, else ws://localhost:8080/ws.
	SignalingURL string
	// TokenURL is where the API key is exchanged for a token, http: or https:.
	// Default: $TOKEN_URL if SignalingURL is not set either, else what belongs
	// to SignalingURL: api/token beside its last path element.
	TokenURL string
	// APIKey is presented to TokenURL and decides which peer this is.
	// Default: $API_KEY, else ak_dev_001.
	APIKey string
	// WaitSignaling makes New wait, under its context, until the signaling
	// server has accepted this peer, and fail if it refuses. Without it New
	// returns once the sidecar runs, and Signaling tells the rest.
	WaitSignaling bool

	// Binary is the sidecar executable of mode Binary.
	Binary string
	// Socket is the Unix socket of mode Attach. Default: $IPC_SOCKET, else
	// /tmp/chatixia-sidecar.sock. The other modes make a private one.
	Socket string

	// ICEServers are the STUN and TURN servers to use. Default: the TURN server
	// of $TURN_URL with $TURN_SECRET (ephemeral credentials) or $TURN_USERNAME
	// and $TURN_PASSWORD, if set; else those of the signaling server.
	ICEServers []ICEServer
	// ExtraICEServers are used besides those, wherever they come from.
	ExtraICEServers []ICEServer
	// RelayOnly forbids direct connections: everything passes a TURN server.
	// Default: whether $ICE_TRANSPORT_POLICY is "relay".
	RelayOnly bool
	// UDPPort, if not 0, is the one UDP port that all peers share, for
	// firewalls that open one port. Default: a port for each connection.
	UDPPort int
	// UDPMux shares one UDP port like UDPPort, on a port that the system picks.
	UDPMux bool
	// NoLoopback leaves out loopback addresses, for agents that never talk to
	// others on their own machine.
	NoLoopback bool
	// MDNS resolves the .local names behind which browsers hide their
	// addresses. It costs multicast traffic.
	MDNS bool
	// RecoveryTimeout is how long the link to a peer may be interrupted before
	// the peer counts as gone. Default 60 s.
	RecoveryTimeout time.Duration

	// MaxMessage is the largest message in bytes, sent or received. Default 16 MiB.
	MaxMessage int
	// MaxDepth is how deep a message may be nested. Default 512.
	MaxDepth int

	// Handlers are there from the first message on. A key is the message type
	// that its handler takes; the handler of "" takes what no other does. See
	// Mesh.Handle to add one later.
	Handlers map[string]Handler
	// OnPeer, if set, is told of peers that come and go. Calls about one peer
	// are in order, and in order with those messages of that peer that want no
	// answer; requests do not wait for them. Calls about different peers may be
	// concurrent. Close is no reason for a call.
	OnPeer func(PeerEvent)
	// OnSignaling, if set, is told of changes on the way to the signaling
	// server, one at a time.
	OnSignaling func(SignalingStatus)
	// OnError, if set, is told of failures that no caller waits for: a message
	// that was accepted and could not be delivered, one that no handler takes, a
	// reply that came to nothing, a sidecar that was lost. One at a time.
	OnError func(error)

	// RequestTimeout bounds a Request whose context has no deadline. Default 30 s.
	RequestTimeout time.Duration
	// MaxRequests is how many requests of one peer may be in work at a time, their
	// handlers running or their replies waiting until the peer reads; what comes
	// on top is answered with ErrBusy. Default 1024.
	MaxRequests int

	// Logger receives the log of mesh and sidecar. The zero value logs nothing.
	// Its writer must not wait, and must not call the Mesh: it may be called with
	// locks held.
	Logger zerolog.Logger

	// launch replaces the function of that name in tests.
	launch func(context.Context, *Config, settings) (*launched, error)
}

// settings is the part of a Config that concerns the sidecar: plain data with
// every default filled in, so that it means the same in this process and, as
// JSON in one environment variable, in a forked one.
type settings struct {
	SignalingURL    string        `json:"signaling_url"`
	TokenURL        string        `json:"token_url"`
	APIKey          string        `json:"api_key"`
	ICEServers      []ICEServer   `json:"ice_servers,omitempty"`
	ExtraICEServers []ICEServer   `json:"extra_ice_servers,omitempty"`
	TURNSecret      string        `json:"turn_secret,omitempty"`
	RelayOnly       bool          `json:"relay_only,omitempty"`
	UDPPort         int           `json:"udp_port,omitempty"`
	UDPMux          bool          `json:"udp_mux,omitempty"`
	NoLoopback      bool          `json:"no_loopback,omitempty"`
	MDNS            bool          `json:"mdns,omitempty"`
	RecoveryTimeout time.Duration `json:"recovery_timeout,omitempty"`
	MaxMessage      int           `json:"max_message"`
	MaxDepth        int           `json:"max_depth"`
	Socket          string        `json:"socket,omitempty"`
	// Token is the secret that the agent's hello must carry; empty where the
	// socket's owner is proof enough.
	Token string `json:"token,omitempty"`
	// WatchStdin: the end of stdin means that the agent is gone.
	WatchStdin bool   `json:"watch_stdin,omitempty"`
	LogLevel   string `json:"log_level,omitempty"`
}

func (s *settings) limits() wire.Limits {
	return wire.Limits{MaxMessage: s.MaxMessage, MaxDepth: s.MaxDepth}
}

const (
	defaultSignalingURL   = "ws://localhost:8080/ws"
	defaultAPIKey         = "ak_dev_001"
	defaultSocket         = "/tmp/chatixia-sidecar.sock"
	defaultRequestTimeout = 30 * time.Second
	defaultMaxRequests    = 1024
	minMaxMessage         = 1024
)

// withDefaults returns the configuration with every default filled in, or a
// *ConfigError for the first field that cannot be used.
func (c Config) withDefaults() (Config, error) {
	if c.Mode < InProcess || c.Mode > Attach {
		return c, &ConfigError{Field: "Mode", Err: fmt.Errorf("%v is no mode; use InProcess, SelfExec, Binary or Attach", c.Mode)}
	}
	c.defaultURLs()
	c.APIKey = first(c.APIKey, os.Getenv("API_KEY"), defaultAPIKey)
	c.Socket = first(c.Socket, os.Getenv("IPC_SOCKET"), defaultSocket)
	c.RelayOnly = c.RelayOnly || strings.EqualFold(os.Getenv("ICE_TRANSPORT_POLICY"), "relay")
	setDefault(&c.MaxMessage, wire.DefaultMaxMessage)
	setDefault(&c.MaxDepth, wire.DefaultMaxDepth)
	setDefault(&c.RequestTimeout, defaultRequestTimeout)
	setDefault(&c.MaxRequests, defaultMaxRequests)
	return c, c.validate()
}

func (c *Config) defaultURLs() {
	if c.SignalingURL == "" {
		c.SignalingURL = first(os.Getenv("SIGNALING_URL"), defaultSignalingURL)
		c.TokenURL = first(c.TokenURL, os.Getenv("TOKEN_URL"))
	}
	if c.TokenURL == "" {
		c.TokenURL = tokenURL(c.SignalingURL)
	}
}

// tokenURL derives ws://host/ws -> http://host/api/token, keeping a prefix
// under which the server is mounted. What it cannot read is reported by
// validate, on the signaling URL.
func tokenURL(signaling string) string {
	u, err := url.Parse(signaling)
	if err != nil {
		return ""
	}
	u.Scheme = strings.Replace(u.Scheme, "ws", "http", 1)
	u.RawQuery = ""
	return u.JoinPath("../api/token").String()
}

func (c *Config) validate() error {
	checks := []struct {
		field, value string
		err          error
	}{
		{"SignalingURL", c.SignalingURL, checkURL(c.SignalingURL, "ws", "wss")},
		{"TokenURL", c.TokenURL, checkURL(c.TokenURL, "http", "https")},
		{"UDPPort", strconv.Itoa(c.UDPPort), checkRange(c.UDPPort, 0, 65535)},
		{"MaxMessage", strconv.Itoa(c.MaxMessage), checkRange(c.MaxMessage, minMaxMessage, 1<<30)},
		{"MaxDepth", strconv.Itoa(c.MaxDepth), checkRange(c.MaxDepth, 1, 100_000)},
		{"MaxRequests", strconv.Itoa(c.MaxRequests), checkRange(c.MaxRequests, 1, 1<<20)},
		{"RequestTimeout", c.RequestTimeout.String(), checkPositive(c.RequestTimeout)},
		{"RecoveryTimeout", c.RecoveryTimeout.String(), checkPositive(c.RecoveryTimeout + 1)},
	}
	if c.Mode == Attach {
		checks = append(checks, struct {
			field, value string
			err          error
		}{"Socket", c.Socket, sock.CheckPath(c.Socket)})
	}
	for _, k := range checks {
		if k.err != nil {
			return &ConfigError{Field: k.field, Value: k.value, Err: k.err}
		}
	}
	if err := checkKey(c.APIKey); err != nil {
		return &ConfigError{Field: "APIKey", Err: err}
	}
	if err := checkICEServers("ICEServers", c.ICEServers); err != nil {
		return err
	}
	if err := checkICEServers("ExtraICEServers", c.ExtraICEServers); err != nil {
		return err
	}
	for typ, h := range c.Handlers {
		if h == nil {
			return &ConfigError{Field: fmt.Sprintf("Handlers[%q]", typ), Err: errNilHandler}
		}
	}
	return nil
}

// settings returns what the sidecar needs of a configuration that has its
// defaults.
func (c *Config) settings() (settings, error) {
	s := settings{
		SignalingURL: c.SignalingURL, TokenURL: c.TokenURL, APIKey: c.APIKey,
		ICEServers: c.ICEServers, ExtraICEServers: c.ExtraICEServers, RelayOnly: c.RelayOnly,
		UDPPort: c.UDPPort, UDPMux: c.UDPMux, NoLoopback: c.NoLoopback, MDNS: c.MDNS,
		RecoveryTimeout: c.RecoveryTimeout, MaxMessage: c.MaxMessage, MaxDepth: c.MaxDepth,
		LogLevel: c.Logger.GetLevel().String(),
	}
	if len(s.ICEServers) > 0 {
		return s, nil
	}
	turn := os.Getenv("TURN_URL")
	if turn == "" {
		return s, nil
	}
	server := ICEServer{URLs: []string{turn}, Username: os.Getenv("TURN_USERNAME"), Credential: os.Getenv("TURN_PASSWORD")}
	checked := server
	if s.TURNSecret = os.Getenv("TURN_SECRET"); s.TURNSecret != "" {
		server.Username, server.Credential = "", ""
		checked.Username, checked.Credential = "later", "later"
	}
	if err := checked.Check(); err != nil {
		return s, &ConfigError{Field: "ICEServers", Value: turn, Err: fmt.Errorf("from TURN_URL, TURN_USERNAME and TURN_PASSWORD (or TURN_SECRET): %w", err)}
	}
	s.ICEServers = []ICEServer{server}
	return s, nil
}

func checkURL(raw string, schemes ...string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return errors.Unwrap(err)
	}
	for _, s := range schemes {
		if u.Scheme == s && u.Host != "" {
			return nil
		}
	}
	return fmt.Errorf("want a URL that begins with %s:// and names a host", strings.Join(schemes, ":// or "))
}

func checkICEServers(field string, servers []ICEServer) error {
	for i, s := range servers {
		if err := s.Check(); err != nil {
			return &ConfigError{Field: fmt.Sprintf("%s[%d]", field, i), Value: strings.Join(s.URLs, ","), Err: err}
		}
	}
	return nil
}

// checkKey keeps what cannot be an HTTP header value out of one, without ever
// repeating the key.
func checkKey(key string) error {
	for i := range len(key) {
		if key[i] < 0x20 || key[i] == 0x7f {
			return fmt.Errorf("control character at byte %d; is there a stray newline at its end?", i)
		}
	}
	return nil
}

func checkRange(v, low, high int) error {
	if v < low || v > high {
		return fmt.Errorf("want %d to %d", low, high)
	}
	return nil
}

func checkPositive(d time.Duration) error {
	if d <= 0 {
		return errors.New("want a positive duration")
	}
	return nil
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func setDefault[T int | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}

// A Handler answers messages of one type. For a request its reply, encoded as
// by encoding/json, becomes the payload of the response, and its error fails
// the request at the asker; for a message that wants no answer both are
// dropped, the error with a log line. ctx ends when the asker gives up, when
// its peer is gone and when the mesh closes.
//
// Messages that want no answer run one at a time per peer, in order; requests
// run concurrently. A handler may call any method of Mesh, which it finds by
// Message.Mesh: it may run before New has returned.
type Handler func(ctx context.Context, msg *Message) (reply any, err error)

var errNilHandler = errors.New("the handler is nil")
