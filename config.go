package mesh

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/sidecar"
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
	// Attach uses a sidecar that is running already and listens on
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
	// Default: $TOKEN_URL if SignalingURL is not set either, else derived from
	// the signaling URL: http://host/api/token for ws://host/ws.
	TokenURL string
	// APIKey is presented to TokenURL and decides the peer id of this agent: the
	// signaling server knows which id belongs to which key, and in development
	// mode the key is the id. Two processes with one key replace each other
	// (ErrReplaced). Default: $API_KEY, else ak_dev_001, so that all agents
	// without a key are the same peer.
	APIKey string
	// IfFree takes the peer id only if no other instance has it, and gives it up to any
	// that comes back or is started: for tools, which must not throw off an agent. If the
	// id is in use the mesh ends with ErrIDInUse. It needs the signaling server of this
	// module, and the mode InProcess or SelfExec.
	IfFree bool
	// WaitSignaling makes New block, under its context, until the signaling
	// server has accepted this peer, and fail at once if that cannot be expected
	// (ErrRefused, ErrMisconfigured, ErrIDInUse). Without it New returns once the sidecar
	// runs; see Signaling and OnSignaling.
	WaitSignaling bool

	// Binary is the sidecar executable of mode Binary. Default: $SIDECAR_BINARY,
	// else chatixia-sidecar on the PATH.
	Binary string
	// Socket is the Unix socket of mode Attach. Default: $IPC_SOCKET, else
	// /tmp/chatixia-sidecar.sock, a name that any local user can hold: where there
	// are others use one in $XDG_RUNTIME_DIR. The other modes make a private one.
	Socket string

	// Network is how the sidecar reaches peers and the signaling server.
	Network Network
	// Identity is who this agent is to its peers, and whom it takes for a peer. In
	// mode Attach the sidecar's own settings count; New fails if its policy is not the
	// one wanted here.
	Identity Identity
	// Limits bound messages and what peers may ask for.
	Limits Limits

	// Handlers are registered before the first message can arrive. A key is the
	// message type that its handler takes; the handler of "" takes what no other
	// does. See Mesh.Handle to add one later.
	Handlers map[string]Handler
	// Card is what this agent says about itself to its peers. See Mesh.SetCard to change it.
	Card *Card
	// Interceptors wrap what this mesh sends, asks and handles; the first is the
	// outermost.
	Interceptors []Interceptor
	// Observer is told of what happens to the mesh.
	Observer Observer
	// OnPeer, if set, is told of peers that come and go. Calls about one peer
	// are in order, and in order with those messages of that peer that want no
	// response; requests do not wait for them. Calls about different peers may be
	// concurrent. Once Close begins there are no further calls.
	OnPeer func(PeerEvent)
	// OnSignaling, if set, is told of changes of the connection to the signaling
	// server. Calls of OnSignaling and OnError are in order and one at a time;
	// what happens while 1024 calls are pending, or 128 about one peer, is logged and
	// not told.
	OnSignaling func(SignalingStatus)
	// OnError, if set, is told of failures that no caller waits for: a message
	// that was accepted and could not be delivered, one that no handler takes, a
	// response that could not be sent, a sidecar that was lost. See OnSignaling.
	// Of what one peer causes, which are the PeerErrors with Op "receive", "handle"
	// and "reply", it is told 128 at once and 16 a second; the log has how many more
	// there were.
	OnError func(error)

	// RequestTimeout bounds a Request whose context has no deadline.
	// Default 30 s; it must not be negative.
	RequestTimeout time.Duration
	// DrainTimeout is how long Close tries to send what was accepted. Default:
	// $MESH_DRAIN_TIMEOUT, such as 10s, else 2 s; 24 h at most.
	DrainTimeout time.Duration

	// Logger receives the log of mesh and sidecar. The zero value logs nothing. See Slog
	// for log/slog.
	// Its writer must not block, and must not call the Mesh: it may be called with
	// locks held.
	Logger zerolog.Logger
}

// Limits bound messages and what peers may ask for.
type Limits struct {
	// MaxMessage is the largest message in bytes, sent or received: its JSON
	// text. Default 16 MiB; 1 KiB to 1 GiB. What waits for handlers is bounded by 16
	// of these or 256 MiB over all peers, whichever is more.
	MaxMessage int
	// MaxDepth is how deep a message may be nested, its own object being level 1.
	// Default 512; 1 to 100,000.
	MaxDepth int
	// MaxRequests is how many requests of one peer may be in work at a time, their
	// handlers running or their responses waiting until the peer reads; one more
	// is refused with ErrBusy, or dropped if the peer does not read. Each takes about
	// 8 KiB of memory besides its bytes. Default 1024; 1 to 1,048,576.
	MaxRequests int
	// MaxStreams is how many streams may be open with one peer, in each direction; with
	// all peers together 16 times as many. One more is refused with ErrTooManyStreams. A
	// stream that is not read holds 256 KiB, and up to 4 MiB, of 16 MiB for each peer, where the path
	// carries so much. Default 128; 1 to 65,536.
	MaxStreams int
}

const (
	defaultSignalingURL   = "ws://localhost:8080/ws"
	defaultAPIKey         = "ak_dev_001"
	defaultSocket         = "/tmp/chatixia-sidecar.sock"
	defaultRequestTimeout = 30 * time.Second
	defaultDrainTimeout   = 2 * time.Second
	maxDrainTimeout       = 24 * time.Hour
	defaultMaxRequests    = 1024
	minMaxMessage         = 1024
)

// withDefaults returns the configuration with every default filled in, or a
// *ConfigError for the first field that cannot be used.
func (c Config) withDefaults() (Config, error) {
	if c.Mode < InProcess || c.Mode > Attach {
		return c, &ConfigError{Field: "Mode", Err: fmt.Errorf("invalid mode %v; use InProcess, SelfExec, Binary or Attach", c.Mode)}
	}
	if c.IfFree && c.Mode != InProcess && c.Mode != SelfExec {
		return c, &ConfigError{Field: "IfFree", Err: fmt.Errorf("the sidecar of mode %v does not know it; use InProcess or SelfExec", c.Mode)}
	}
	c.defaultURLs()
	c.APIKey = cmp.Or(c.APIKey, os.Getenv("API_KEY"), defaultAPIKey)
	c.Socket = cmp.Or(c.Socket, os.Getenv("IPC_SOCKET"), defaultSocket)
	c.Network.RelayOnly = c.Network.RelayOnly || strings.EqualFold(os.Getenv("ICE_TRANSPORT_POLICY"), "relay")
	c.Limits.MaxMessage = cmp.Or(c.Limits.MaxMessage, wire.DefaultMaxMessage)
	c.Limits.MaxDepth = cmp.Or(c.Limits.MaxDepth, wire.DefaultMaxDepth)
	c.Limits.MaxRequests = cmp.Or(c.Limits.MaxRequests, defaultMaxRequests)
	c.Limits.MaxStreams = cmp.Or(c.Limits.MaxStreams, wire.DefaultMaxStreams)
	c.RequestTimeout = cmp.Or(c.RequestTimeout, defaultRequestTimeout)
	var err error
	if c.Network.RecoveryTimeout, err = duration("Network.RecoveryTimeout", c.Network.RecoveryTimeout, "MESH_RECOVERY_TIMEOUT"); err != nil {
		return c, err
	}
	if err := c.Network.addressDefaults(); err != nil {
		return c, err
	}
	if err := c.Network.localDefault(); err != nil {
		return c, err
	}
	if c.DrainTimeout, err = duration("DrainTimeout", c.DrainTimeout, "MESH_DRAIN_TIMEOUT"); err != nil {
		return c, err
	}
	c.DrainTimeout = cmp.Or(c.DrainTimeout, defaultDrainTimeout)
	if err := c.validate(); err != nil {
		return c, err
	}
	if c.Identity, err = c.Identity.withDefaults(); err != nil {
		return c, err
	}
	return c, c.absolutePaths()
}

// absolutePaths makes paths mean the same when the working directory has changed
// by the time at which they are used again.
func (c *Config) absolutePaths() error {
	paths := map[string]*string{
		"Network.CAFile": &c.Network.CAFile, "Network.CertFile": &c.Network.CertFile, "Network.KeyFile": &c.Network.KeyFile,
	}
	if strings.ContainsRune(c.Binary, filepath.Separator) { // else it is looked for on the PATH
		paths["Binary"] = &c.Binary
	}
	for field, path := range paths {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return &ConfigError{Field: field, Value: *path, Err: err}
		}
		*path = abs
	}
	return nil
}

// duration returns the one that is set in a field, or that of its environment variable; 0 if there is none.
func duration(field string, set time.Duration, variable string) (time.Duration, error) {
	text := os.Getenv(variable)
	if set != 0 || text == "" {
		return set, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, &ConfigError{Field: field, Value: text, Err: errors.New("want a positive duration, such as 90s or 2m")}
	}
	return d, nil
}

func (c *Config) defaultURLs() {
	if c.SignalingURL == "" {
		c.SignalingURL = cmp.Or(os.Getenv("SIGNALING_URL"), defaultSignalingURL)
		c.TokenURL = cmp.Or(c.TokenURL, os.Getenv("TOKEN_URL"))
	}
	if c.TokenURL == "" && !sidecar.InMemory(c.SignalingURL) {
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

// checkURL checks the URL of a signaling server. An agent of package meshtest has none.
func (c *Config) checkURL(text string, schemes ...string) error {
	if sidecar.InMemory(c.SignalingURL) {
		return nil
	}
	return signal.CheckURL(text, schemes...)
}

func (c *Config) validate() error {
	checks := []struct {
		field, value string
		err          error
	}{
		{"SignalingURL", "", c.checkURL(c.SignalingURL, "ws", "wss")},
		{"TokenURL", "", c.checkURL(c.TokenURL, "http", "https")},
		{"APIKey", "", checkKey(c.APIKey)},
		{"Network.UDPPort", strconv.Itoa(c.Network.UDPPort), checkRange(c.Network.UDPPort, AnyUDPPort, 65535)},
		{"Network.RecoveryTimeout", c.Network.RecoveryTimeout.String(), checkNotNegative(c.Network.RecoveryTimeout)},
		{"Limits.MaxMessage", strconv.Itoa(c.Limits.MaxMessage), checkRange(c.Limits.MaxMessage, minMaxMessage, 1<<30)},
		{"Limits.MaxDepth", strconv.Itoa(c.Limits.MaxDepth), checkRange(c.Limits.MaxDepth, 1, 100_000)},
		{"Limits.MaxRequests", strconv.Itoa(c.Limits.MaxRequests), checkRange(c.Limits.MaxRequests, 1, 1<<20)},
		{"Limits.MaxStreams", strconv.Itoa(c.Limits.MaxStreams), checkRange(c.Limits.MaxStreams, 1, 1<<16)},
		{"DrainTimeout", c.DrainTimeout.String(), checkDrainTimeout(c.DrainTimeout)},
		{"RequestTimeout", c.RequestTimeout.String(), checkPositive(c.RequestTimeout)},
	}
	for _, k := range checks {
		if k.err != nil {
			return &ConfigError{Field: k.field, Value: k.value, Err: k.err}
		}
	}
	if c.Mode == Attach {
		if err := sock.CheckPath(c.Socket); err != nil {
			return &ConfigError{Field: "Socket", Value: c.Socket, Err: err}
		}
	}
	if err := checkICEServers("ICEServers", c.Network.ICEServers); err != nil {
		return err
	}
	if err := checkICEServers("ExtraICEServers", c.Network.ExtraICEServers); err != nil {
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
func (c *Config) settings() (sidecar.Settings, error) {
	n := c.Network
	s := sidecar.Settings{
		Signaling: signal.Settings{
			URL: c.SignalingURL, TokenURL: c.TokenURL, APIKey: c.APIKey, Started: time.Now(), IfFree: c.IfFree,
			CAFile: n.CAFile, CertFile: n.CertFile, KeyFile: n.KeyFile,
		},
		Network: sidecar.Network{
			RelayOnly: n.RelayOnly, UDPPort: n.UDPPort, Interfaces: n.Interfaces, Addresses: n.Addresses, NoLoopback: n.NoLoopback, NoLocal: n.NoLocal, MDNS: n.MDNS,
			RecoveryTimeout: n.RecoveryTimeout, LogWebRTC: n.LogWebRTC,
		},
		Identity:   c.Identity.settings(),
		Limits:     wire.Limits{MaxMessage: c.Limits.MaxMessage, MaxDepth: c.Limits.MaxDepth, MaxStreams: c.Limits.MaxStreams},
		ICEServers: iceServers(n.ICEServers), ExtraICEServers: iceServers(n.ExtraICEServers),
		LogLevel: c.Logger.GetLevel().String(),
	}
	if err := c.settingsError(s.Check(c.Logger)); err != nil {
		return s, err
	}
	if unused := c.Identity.unused(); len(unused) > 0 {
		c.Logger.Warn().Strs("unused", unused).Msg("the identity policy is off, so that peers need no identity, and some settings are not used")
	}
	if len(s.ICEServers) > 0 {
		return s, nil
	}
	server, secret, err := turnServer()
	if err != nil || server == nil {
		return s, err
	}
	s.ICEServers, s.TURNSecret = []signal.ICEServer{*server}, secret
	return s, nil
}

// settingsError returns the *ConfigError for an error of Settings.Check.
func (c *Config) settingsError(err error) error {
	if signaling := (*signal.FieldError)(nil); errors.As(err, &signaling) {
		n := c.Network
		file := map[string]string{"CAFile": n.CAFile, "CertFile": n.CertFile, "KeyFile": n.KeyFile}[signaling.Field]
		return &ConfigError{Field: "Network." + signaling.Field, Value: file, Err: signaling.Err}
	}
	if id := (*identity.FieldError)(nil); errors.As(err, &id) {
		return &ConfigError{Field: "Identity." + id.Field, Value: id.Value, Err: id.Err}
	}
	return nil
}

var errNotBool = errors.New("want true or false")

// checkKey returns why a key cannot be an HTTP header value, nil if it can. The
// error does not repeat the key.
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

func checkNotNegative(d time.Duration) error {
	if d < 0 {
		return errors.New("want a duration of 0 or more")
	}
	return nil
}

func checkDrainTimeout(d time.Duration) error {
	if d < time.Millisecond || d > maxDrainTimeout {
		return fmt.Errorf("want %v to %v", time.Millisecond, maxDrainTimeout)
	}
	return nil
}

func checkPositive(d time.Duration) error {
	if d <= 0 {
		return errors.New("want a positive duration")
	}
	return nil
}
