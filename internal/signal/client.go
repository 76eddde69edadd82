// Package signal is the client of the signaling server: it exchanges the API key for a token, keeps a
// WebSocket open, registers, and passes offers, answers and candidates both ways. It also has what client and
// server share: the messages, their queue, ICE servers and TURN credentials.
//
// It knows nothing of WebRTC: when the server is lost it calls Handler.Disconnected, which decides what that
// means for peers.
package signal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/backoff"
)

// State is the state of the connection to the server.
type State string

// The states of a connection.
const (
	// Connecting means that there is no connection; Status.Err says why the last one ended or failed.
	Connecting State = "connecting"
	// Connected means registered with the server; Status.PeerID is the client's own peer id.
	Connected State = "connected"
	// Refused means that the server did not accept the credentials. The client keeps trying, slowly: the
	// server may be restarted with more keys.
	Refused State = "refused"
	// Replaced means that another instance with the same API key has registered, or, with Settings.IfFree, that another
	// connection has the peer id. Run returns ErrReplaced or ErrInUse.
	Replaced State = "replaced"
)

// Status is one change of state.
type Status struct {
	State  State
	PeerID string // with Connected
	Err    error  // with Refused and Replaced, and with Connecting after the first try
	// Permanent means that only a person can mend Err: it wraps ErrRefused, ErrMisconfigured, ErrInUse or
	// ErrReplaced. Unless it was Replaced, the client keeps trying all the same, slowly.
	Permanent bool
}

// Handler receives what a Client reports. Run calls its methods one at a time, from its own goroutine. They
// should return soon: nothing is read from the server meanwhile.
type Handler interface {
	// Registered is called after every connect. self is the client's peer id; l has the other
	// registered peers, without duplicates. It comes before any Receive of the same connection.
	Registered(self string, l PeersPayload)
	// Receive passes on an offer, answer, candidate or error. Its payload has not been checked.
	Receive(Message)
	// Disconnected is called once for each connection that was Registered: the WebSocket is gone, and what
	// was queued for it is lost.
	Disconnected()
	// Status reports every change of state. The first is Connecting.
	Status(Status)
	// ICEServers passes on the servers that come with the token or from /api/config: before Registered,
	// unless they take longer than 2 s, and again before TURN credentials expire. It is called only with
	// Config.FetchICE. Servers with unusable URLs are left out.
	ICEServers([]ICEServer)
}

// timing holds the durations, which tests shorten.
type timing struct {
	request   time.Duration // limit of one HTTP request or handshake
	patience  time.Duration // limit from the WebSocket's opening to ICE servers; then it registers without
	register  time.Duration // limit from register to peer_list
	ping      time.Duration // between pings
	pong      time.Duration // limit from ping to pong
	probe     time.Duration // the same for the ping of a Probe; limit of a connect, between two tries, after a Probe
	urgent    time.Duration // how long a Probe counts
	write     time.Duration // limit for one message
	message   time.Duration // limit from the beginning of a message of the server's to its end
	heartbeat time.Duration // between heartbeats
	inUse     time.Duration // limit from the first refusal of the own peer id, after an outage, to a registration
	inUseNew  time.Duration // the same of a client that was never registered
	refresh   time.Duration // minimum between two requests for /api/config

	retry func(failures int) time.Duration // before the next try
	slow  func() time.Duration             // the same, after a permanent failure
}

var defaultTiming = timing{
	request:   10 * time.Second,
	patience:  2 * time.Second,
	register:  10 * time.Second,
	ping:      20 * time.Second,
	pong:      10 * time.Second,
	probe:     2 * time.Second,
	urgent:    5 * time.Second,
	write:     10 * time.Second,
	message:   time.Minute, // a long peer_list on a slow line
	heartbeat: 30 * time.Second,
	inUse:     time.Minute, // a server finds out within half of that that a connection is dead
	inUseNew:  time.Second,
	refresh:   time.Minute,
	retry:     func(n int) time.Duration { return backoff.Delay(retryFirst, retryMost, n) },
	slow:      func() time.Duration { return backoff.Delay(retrySlow, retrySlow, 0) },
}

const (
	// retryFirst and retryMost bound the delays between tries. They are random, so that the peers that a restarted
	// server has lost do not come back all at once: a thousand of them take up to 10 s. retrySlow is the delay after
	// a permanent failure.
	retryFirst = 500 * time.Millisecond
	retryMost  = 10 * time.Second
	retrySlow  = 30 * time.Second
	// stableAfter is how long a connection must have been registered for its end to count as the first
	// failure again: a server that accepts and hangs up must not be dialled in a tight loop.
	stableAfter = 5 * time.Second
	// readLimit bounds a message in bytes: enough for a peer_list of ten thousand ids of 128 bytes with
	// every byte escaped.
	readLimit = 4 << 20
	// sendLimit bounds the memory of the send queue in bytes: enough for the offers of a newcomer to a mesh of thousands.
	sendLimit = 8 << 20
	// holdLimit bounds the memory of messages held until the peer_list, in bytes; holdCost is what one costs besides
	// its payload.
	holdLimit = 4 << 20
	holdCost  = 512
)

// Client is a signaling client. Send, Probe and CheckCredentials may be called concurrently, at any time.
type Client struct {
	cfg    Config
	noise  zerolog.Logger // cfg.Log, sampled, for what the server can cause without end
	timing timing
	probes chan struct{} // one that was asked for and is not under way

	// Used by Run only.
	key      string // see serve
	indirect bool   // the server does not take it in the handshake
	last     Status
	joined   bool      // it was registered
	inUse    time.Time // when the peer id was first found in use since

	mu        sync.Mutex
	self      string
	out       *Queue        // nil while there is no connection
	probed    time.Time     // the last Probe
	alive     func()        // of the last Probe that has no response yet
	connect   *connect      // under way
	connected time.Duration // how long the last one took
}

// New returns a client, which does nothing before Run or CheckCredentials.
func New(cfg Config) *Client {
	noise := cfg.Log.Sample(&zerolog.BurstSampler{Burst: 20, Period: time.Minute})
	return &Client{cfg: cfg, noise: noise, timing: defaultTiming, key: cfg.APIKey, probes: make(chan struct{}, 1)}
}

// Run connects, and connects again whenever the connection ends, until ctx ends, another instance with
// the same API key replaces this one, or, with Settings.IfFree, another connection has the peer id; then it returns
// ctx.Err() or an error that wraps ErrReplaced or ErrInUse, with none of its goroutines left. A URL or HTTPClient that cannot work is an error at once. The delay between
// two tries grows from half a second to 10 s, or is 30 s after a permanent failure, and is shortened by up to half at
// random; after a Probe it is 2 s at most. Every try fetches a new token. Run may be called once.
func (c *Client) Run(ctx context.Context, h Handler) error {
	if err := c.cfg.checkLasting(); err != nil {
		return err
	}
	c.status(h, Status{State: Connecting})
	for failures := 0; ; failures++ {
		began := time.Now()
		up, err := c.serve(ctx, h)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if other := c.taken(err); other != nil {
			err = fmt.Errorf("%w: %w", other, err)
			c.cfg.Log.Warn().Err(err).Msg("another instance has the peer id; not reconnecting")
			c.status(h, Status{State: Replaced, Err: err, Permanent: true})
			return err
		}
		if up >= stableAfter {
			failures = 0
		}
		if err := c.awaitRetry(ctx, h, err, failures, began); err != nil {
			return err
		}
	}
}

// taken returns ErrReplaced or ErrInUse if a connection ended because another one has the peer id for good, nil if not.
// After an outage the other one may be this client's own, whose end the server has not noticed yet; at first it may be that of
// a tool that has just ended.
func (c *Client) taken(err error) error {
	switch websocket.CloseStatus(err) {
	case CloseReplaced:
		return ErrReplaced
	case CloseInUse:
		if c.inUse.IsZero() {
			c.inUse = time.Now()
		}
		patience := c.timing.inUseNew
		if c.joined {
			patience = c.timing.inUse
		}
		if time.Since(c.inUse) > patience {
			return ErrInUse
		}
	}
	return nil
}

// awaitRetry reports the failure cause of a try, and blocks until it is time for the next one.
func (c *Client) awaitRetry(ctx context.Context, h Handler, cause error, failures int, began time.Time) error {
	s := Status{State: Connecting, Err: cause, Permanent: permanent(cause)}
	if errors.Is(cause, ErrRefused) {
		s.State = Refused
	}
	wait := c.timing.retry(failures)
	if s.Permanent {
		wait = c.timing.slow()
	}
	// A server that responds says by that how it wants to be treated, and may be overloaded.
	hurries := !responded(cause)
	soon := began.Add(backoff.Delay(c.timing.probe/2, c.timing.probe/2, 0))
	if hurries && c.urgent() {
		wait = max(0, min(wait, time.Until(soon)))
	}
	level := zerolog.WarnLevel
	if !c.status(h, s) { // a server that is urgently needed is dialled every 2 s
		level = zerolog.DebugLevel
	}
	c.cfg.Log.WithLevel(level).Err(cause).Dur("retry_in", wait).Msg("no signaling connection")
	timer := time.NewTimer(wait)
	defer timer.Stop()
	due := time.Now().Add(wait)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		case <-c.probes:
			if hurries && soon.Before(due) {
				due = soon
				timer.Reset(time.Until(due))
			}
		}
	}
}

// CheckCredentials tries to exchange the API key for a token until the server decides: it returns nil if the
// server accepts the key, an error that wraps ErrRefused if it does not, one that wraps ErrMisconfigured if the
// exchange cannot work, and ctx.Err() if ctx ends first.
func (c *Client) CheckCredentials(ctx context.Context) error {
	if err := c.cfg.checkLasting(); err != nil {
		return err
	}
	for failures := 0; ; failures++ {
		_, err := c.exchange(ctx, c.cfg.APIKey)
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

// status reports s, unless it repeats the last one; then it returns false.
func (c *Client) status(h Handler, s Status) bool {
	same := s.State == c.last.State && s.PeerID == c.last.PeerID && fmt.Sprint(s.Err) == fmt.Sprint(c.last.Err)
	if same {
		return false
	}
	c.last = s
	h.Status(s)
	return true
}

// serve makes one connection and serves it to its end. up is how long it was registered.
func (c *Client) serve(ctx context.Context, h Handler) (up time.Duration, err error) {
	if c.direct() {
		tok, err := c.directToken()
		if err != nil {
			return 0, err
		}
		up, err := c.serveWith(ctx, h, tok)
		if !errors.Is(err, errIndirect) {
			return up, err
		}
	}
	tok, err := c.exchange(ctx, c.key)
	if err != nil {
		return 0, err
	}
	if c.key == "" {
		// A server in development mode has chosen a random id. There the id serves as the key, which
		// keeps the id across reconnects.
		c.key = tok.PeerID
	}
	return c.serveWith(ctx, h, tok)
}

// serveWith opens the WebSocket with a token and serves it to its end.
func (c *Client) serveWith(ctx context.Context, h Handler, tok token) (up time.Duration, err error) {
	cn := &connection{client: c, token: tok, handler: h, out: NewQueue(sendLimit, nil)}
	return cn.run(ctx)
}

// Send queues m for the current connection and does not block; the error is ErrOffline or ErrBacklog, or
// about the payload. It fills in an empty PeerID. Nil means queued, not delivered: the connection may end
// (Handler.Disconnected), or the server may not know the target (an error message).
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

// setOut makes Send use q, with self as the sender. Without q, Send fails.
func (c *Client) setOut(self string, q *Queue) {
	c.mu.Lock()
	c.self, c.out = self, q
	c.mu.Unlock()
}
