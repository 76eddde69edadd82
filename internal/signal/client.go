// Package signal is the client of the signaling server: it exchanges the API key for a token, keeps a
// WebSocket open, registers, and passes offers, answers and candidates both ways. It knows nothing of
// WebRTC: losing the server means Handler.Disconnected, and what that means for peers is up to others.
package signal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/rs/zerolog"
)

// State is where a client is with its server.
type State string

// The states of a client.
const (
	// Connecting: no connection yet, or lost; Status.Err says why the last try ended.
	Connecting State = "connecting"
	// Connected: registered with the server; Status.PeerID is who we are there.
	Connected State = "connected"
	// Refused: the credentials were not accepted. The client goes on trying, slowly: keys can be
	// added to a running server's successor.
	Refused State = "refused"
	// Replaced: another connection with the same peer id has taken over. Run returns ErrReplaced.
	Replaced State = "replaced"
)

// Status is one change of state.
type Status struct {
	State  State
	PeerID string // with Connected
	Err    error  // with Refused and Replaced, and with Connecting after the first try
	// Permanent means that only a person can mend Err. The client tries again all the same, slowly, unless
	// it was Replaced.
	Permanent bool
}

// Handler is told what happens. Its methods are called one at a time, all from Run's own goroutine, and
// should return soon: while one runs, nothing is read from the server.
type Handler interface {
	// Registered follows every connect: self is our peer id, peers is who else is registered (never
	// self, no duplicates). It comes before any Receive of the same connection.
	Registered(self string, peers []string)
	// Receive is an offer, answer, candidate or error. Payloads are not looked into.
	Receive(Message)
	// Disconnected says that the WebSocket is gone and what was queued for it is lost. Once per
	// connection that had been Registered.
	Disconnected()
	// Status reports every change of state, the first one being Connecting.
	Status(Status)
	// ICEServers is what the server lists, with the token or at /api/config, before Registered unless that
	// takes seconds, and again in time before TURN credentials expire. Only with Config.FetchICE. Servers
	// with unusable URLs are left out.
	ICEServers([]ICEServer)
}

// Config is where the server is and who is asking.
type Config struct {
	URL      string // the WebSocket: ws, wss, http or https
	TokenURL string // the token exchange: http or https
	// APIKey goes into the header X-API-Key of the token exchange and nowhere else: not into a
	// log, an error or a redirected request. Empty asks a server in development mode for a random id.
	APIKey string
	// FetchICE asks for the server's ICE servers, unless they come with the token, at TokenURL with its last
	// element replaced by config.
	FetchICE bool
	// Started is when this instance was started, for the server to tell it from others with the same API
	// key: the latest keeps the peer id. Zero is not sent.
	Started time.Time
	// CAFile names a PEM file of certificate authorities that are trusted besides the system's. CertFile
	// and KeyFile name the PEM files of a client certificate and its key; both or neither.
	CAFile, CertFile, KeyFile string
	Log      zerolog.Logger // silent by default
	// HTTPClient's transport is used for all requests, the WebSocket handshake included. Nil means one
	// of our own. Its redirect policy is not used: redirects are errors, because they would carry the
	// key to another place.
	HTTPClient *http.Client
}

// Check reports the first field that cannot work, by name.
func (c Config) Check() error {
	if err := CheckURL(c.URL, "ws", "wss", "http", "https"); err != nil {
		return fmt.Errorf("URL: %w", err)
	}
	if err := CheckURL(c.TokenURL, "http", "https"); err != nil {
		return fmt.Errorf("TokenURL: %w", err)
	}
	return nil
}

// timing is what tests make shorter.
type timing struct {
	request   time.Duration // one HTTP request or handshake
	patience  time.Duration // from the WebSocket's opening for the ICE servers
	register  time.Duration // from registering to the peer_list
	ping      time.Duration // between pings
	pong      time.Duration // for the answer to a ping
	write     time.Duration // for one message
	heartbeat time.Duration // between heartbeats
	refresh   time.Duration // at least between two fetches of /api/config
	retry     func(failures int) time.Duration
	slow      func() time.Duration
}

var defaultTiming = timing{
	request:   10 * time.Second,
	patience:  2 * time.Second,
	register:  10 * time.Second,
	ping:      20 * time.Second,
	pong:      10 * time.Second,
	write:     10 * time.Second,
	heartbeat: 30 * time.Second,
	refresh:   time.Minute,
	retry:     func(n int) time.Duration { return backoff(n, rand.Float64()) },
	slow:      func() time.Duration { return slowBackoff(rand.Float64()) },
}

const (
	// readLimit holds a peer_list of ten thousand ids of 128 bytes with every byte escaped.
	readLimit = 4 << 20
	// sendLimit holds the offers of a newcomer to a mesh of thousands.
	sendLimit = 8 << 20
	// holdLimit is how many messages may arrive before the peer_list.
	holdLimit = 1024
)

// Client is a signaling client. Send may be called from anywhere at any time.
type Client struct {
	cfg    Config
	http   *http.Client
	timing timing

	key  string // Run's own; see connect
	last Status // Run's own

	mu   sync.Mutex
	self string
	out  *Queue // nil while there is no connection
}

// New prepares a client; Run does the work.
func New(cfg Config) *Client {
	hc := &http.Client{}
	if cfg.HTTPClient != nil {
		*hc = *cfg.HTTPClient
	}
	if hc.Transport == nil {
		// Kept connections would only be goroutines to wait for: requests are minutes apart, and net/http
		// makes a WebSocket a connection of its own.
		hc.Transport = &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	}
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{cfg: cfg, http: hc, timing: defaultTiming, key: cfg.APIKey}
}

// Run connects, and connects again whenever the connection ends, until ctx does; then it returns
// ctx.Err() and none of its goroutines is left. What Config.Check finds is returned at once. Waits grow
// from under a second to 30 s, with jitter; every connect uses a fresh token. Call it once.
func (c *Client) Run(ctx context.Context, h Handler) error {
	if err := c.cfg.Check(); err != nil {
		return err
	}
	c.status(h, Status{State: Connecting})
	for failures := 0; ; failures++ {
		up, err := c.connect(ctx, h)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if up >= stableAfter {
			failures = 0
		}
		if websocket.CloseStatus(err) == CloseReplaced {
			err = fmt.Errorf("%w (%w)", ErrReplaced, err)
			c.cfg.Log.Warn().Err(err).Msg("replaced at the signaling server; not reconnecting")
			c.status(h, Status{State: Replaced, Err: err, Permanent: true})
			return err
		}
		wait := c.timing.retry(failures)
		state := Connecting
		if errors.Is(err, ErrRefused) {
			state = Refused
		}
		if permanent(err) {
			wait = c.timing.slow()
		}
		c.cfg.Log.Warn().Err(err).Dur("retry_in", wait).Msg("no signaling connection")
		c.status(h, Status{State: state, Err: err, Permanent: permanent(err)})
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// CheckCredentials exchanges the API key for a token until it is known whether
// the server takes it: nil if so, an error that wraps ErrRefused if not, ctx.Err()
// if ctx ends before the server has answered. It may run beside Run.
func (c *Client) CheckCredentials(ctx context.Context) error {
	if err := c.cfg.Check(); err != nil {
		return err
	}
	for failures := 0; ; failures++ {
		_, err := c.exchange(ctx)
		if err == nil || permanent(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(c.timing.retry(failures)):
		}
	}
}

// status reports s unless it says what the last one has said.
func (c *Client) status(h Handler, s Status) {
	same := s.State == c.last.State && s.PeerID == c.last.PeerID && fmt.Sprint(s.Err) == fmt.Sprint(c.last.Err)
	if same {
		return
	}
	c.last = s
	h.Status(s)
}

// connect makes one connection and serves it to its end; up is how long it had been registered.
func (c *Client) connect(ctx context.Context, h Handler) (up time.Duration, err error) {
	tok, err := c.exchange(ctx)
	if err != nil {
		return 0, err
	}
	if c.key == "" {
		// A server in development mode gave us a random id. There the id is the key, so that we can
		// stay who we are after a reconnect.
		c.key = tok.PeerID
	}
	s := &session{client: c, token: tok, handler: h, out: NewQueue(sendLimit)}
	return s.run(ctx)
}

// Send queues m for the current connection. An empty PeerID is filled in. It does not wait: the error
// is ErrOffline or ErrBacklog. Nil says that m was queued, not that it arrives: the connection may end
// (Handler.Disconnected), or the server may know no such target (an error message).
func (c *Client) Send(m Message) error {
	c.mu.Lock()
	self, out := c.self, c.out
	c.mu.Unlock()
	if out == nil {
		return ErrOffline
	}
	if m.PeerID == "" {
		m.PeerID = self
	}
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("signaling message %q: %w", m.Type, err)
	}
	if !out.Push(b) {
		return ErrBacklog
	}
	return nil
}

// setOut makes Send use q, or fail with nil.
func (c *Client) setOut(self string, q *Queue) {
	c.mu.Lock()
	c.self, c.out = self, q
	c.mu.Unlock()
}
