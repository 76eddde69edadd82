package signaling

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/signal"
)

// closeGrace is how long a client has for the farewell message and the closing handshake.
const closeGrace = time.Second

// pause is how long the server stops reading from a client whose message was refused, or not relayed: it slows a
// flood, and an honest client's burst of candidates only a little.
const pause = 10 * time.Millisecond

// connection is one WebSocket connection. run, with the reader, runs in the HTTP handler's goroutine and returns
// when the other goroutines have ended.
type connection struct {
	client  client
	cfg     *Config
	outside *logs.Outside
	source  netip.Prefix
	token   [sha256.Size]byte // hash of the token it was opened with
	ws      *websocket.Conn
	memory  *signal.Pool // of messages that are not complete

	began    time.Time
	heardAt  atomic.Int64  // when the client sent something or a pong, in nanoseconds since began
	watching chan struct{} // closed by watch
	broken   atomic.Bool   // writing has failed, and not for want of time

	once     sync.Once
	ended    chan struct{} // closed by end, which sets the rest before
	code     websocket.StatusCode
	reason   string
	farewell []byte
}

const (
	// fragment is the length of the longest message that is sent in one piece, in bytes.
	fragment = 16 << 10
	// freeMessage is how much memory in bytes each connection may always have for the message that it is receiving: more
	// than offers and candidates need. What is beyond it is bounded for all together, to unfinishedMessages times the
	// length of the longest.
	freeMessage        = 16 << 10
	unfinishedMessages = 256
)

var (
	errClosed  = errors.New("the server is shutting down")
	errFull    = errors.New("the server has no free connection; try again later")
	errTooSlow = errors.New("too slow: did not take a message in time")
	errAddress = errors.New("too many connections from this address; try again later")
	errPeer    = errors.New("too many connections of this peer; try again when one has ended")
)

// maxPerPeer bounds the connections of one peer id: the member, a newcomer, and one that is ending.
const maxPerPeer = 3

func (s *Server) handleWebSocket(w http.ResponseWriter, r *http.Request) {
	token, greeting := presentedToken(r), (*tokenResponse)(nil)
	key := presentedKey(r)
	k, ok := s.identify(w, r, func() (Key, error) {
		switch {
		case token != "":
			return s.verify(token)
		case key != "":
			return s.authenticate(key)
		}
		return Key{}, errNothing
	})
	if !ok {
		return
	}
	if token == "" { // what the client would have asked for before
		if greeting, ok = s.respond(w, r, k); !ok {
			return
		}
		token = greeting.Token
	}
	c := &connection{
		cfg: &s.cfg, outside: s.outside, source: s.source(r), token: sha256.Sum256([]byte(token)), memory: s.unfinished,
		began: time.Now(), ended: make(chan struct{}), watching: make(chan struct{}),
	}
	c.client = client{id: k.PeerID, out: signal.NewQueue(s.cfg.MaxQueue, s.pool), end: c.end, watch: func() { close(c.watching) }}
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") && !canHijack(w) {
		c.report(zerolog.ErrorLevel).Str("writer", fmt.Sprintf("%T", w)).Msg("WebSocket impossible: " + noHijacker)
		writeError(w, http.StatusNotImplemented, noHijacker)
		return
	}
	if err := s.admit(c); err != nil {
		c.report(zerolog.WarnLevel).Str("remote", logs.Cut(r.RemoteAddr)).Err(err).Msg("WebSocket refused")
		if errors.Is(err, errAddress) || errors.Is(err, errPeer) {
			writeTooMany(w, closeGrace, err.Error())
		} else {
			writeError(w, http.StatusServiceUnavailable, err.Error())
		}
		return
	}
	defer s.dismiss(c)
	var err error
	if greeting != nil {
		w.Header().Set(signal.HeaderWelcome, "1")
	}
	// The check of the origin protects cookies, and there are none: the token alone decides.
	c.ws, err = websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		c.report(zerolog.WarnLevel).Str("remote", logs.Cut(r.RemoteAddr)).Str("error", logs.Error(err)).Msg("WebSocket handshake failed")
		return
	}
	c.ws.SetReadLimit(int64(s.cfg.MaxMessage))
	c.report(zerolog.InfoLevel).Str("remote", logs.Cut(r.RemoteAddr)).Str("role", logs.Cut(k.Role)).Msg("peer connected")
	s.hub.join(&c.client)
	defer s.hub.leave(&c.client)
	if greeting != nil {
		s.hub.greet(&c.client, greeting, r.Header.Get(signal.HeaderRegister))
	}
	c.run(s.hub)
}

const noHijacker = "a middleware of this server wraps the http.ResponseWriter without http.Hijacker; " +
	"give the wrapper a method Unwrap() http.ResponseWriter, or mount the signaling server outside of that middleware"

// canHijack reports whether w, or a writer that it wraps, is an http.Hijacker. It searches as package
// websocket does.
func canHijack(w http.ResponseWriter) bool {
	for {
		switch t := w.(type) {
		case http.Hijacker:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			return false
		}
	}
}

// admit adds c to the connections, if there is room.
func (s *Server) admit(c *connection) error {
	// A peer whose connection is half dead must get in even when the server is full.
	returning := s.hub.find(c.client.id) != nil
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	if len(s.peers[c.client.id]) >= maxPerPeer {
		return errPeer
	}
	if len(s.connections) >= s.cfg.MaxConnections && !returning {
		return errFull
	}
	if s.addresses[c.source] >= s.cfg.MaxPerAddress && c.source.IsValid() && !returning {
		return errAddress
	}
	s.connections[c] = struct{}{}
	s.peers[c.client.id] = append(s.peers[c.client.id], c)
	s.addresses[c.source]++
	s.wg.Add(1)
	return nil
}

// dismiss is the end of what admit has begun.
func (s *Server) dismiss(c *connection) {
	c.client.out.Close()
	s.mu.Lock()
	delete(s.connections, c)
	if left := slices.DeleteFunc(s.peers[c.client.id], func(other *connection) bool { return other == c }); len(left) > 0 {
		s.peers[c.client.id] = left
	} else {
		delete(s.peers, c.client.id)
	}
	if s.addresses[c.source]--; s.addresses[c.source] == 0 {
		delete(s.addresses, c.source)
	}
	s.mu.Unlock()
	s.wg.Done()
}

// connectedWith reports whether a connection of the peer was opened with token.
func (s *Server) connectedWith(id, token string) bool {
	hash := sha256.Sum256([]byte(token))
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.peers[id], func(c *connection) bool { return c.token == hash })
}

// report begins a line that the peer has caused.
func (c *connection) report(level zerolog.Level) *zerolog.Event {
	return c.outside.At(level, c.client.id).Str("peer_id", c.client.id)
}

// end makes the connection end, and does not block: the client gets farewell, a message, unless that is nil, and
// then code and reason. Only the first call has an effect.
func (c *connection) end(code websocket.StatusCode, reason string, farewell []byte) {
	c.once.Do(func() {
		c.code, c.reason, c.farewell = code, reason, farewell
		close(c.ended)
	})
}

// run serves the connection to its end.
func (c *connection) run(h *hub) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { c.write(ctx) })
	wg.Go(func() { c.ping(ctx) })
	wg.Go(func() {
		// Package websocket allows 5 s twice for its closing handshake; ending the context cuts it short.
		select {
		case <-c.ended:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(closeGrace):
			cancel()
		case <-ctx.Done():
		}
	})
	err := c.read(ctx, h)
	if errors.Is(err, net.ErrClosed) { // by the failure of another goroutine, which has to say so before it is stopped
		select {
		case <-c.ended:
		case <-time.After(closeGrace):
		}
	}
	cancel()
	_ = c.ws.CloseNow()
	wg.Wait() // before what follows: the other goroutines may know better why reading failed
	if c.closedByClient(err) {
		h.departed(&c.client, c.began.Add(time.Duration(c.heardAt.Load())))
	}
	c.end(websocket.StatusNormalClosure, "", nil)
	level := zerolog.InfoLevel
	if c.code == signal.CloseReplaced {
		level = zerolog.WarnLevel // two instances may share a key
	}
	event := c.report(level)
	if !errors.Is(err, io.EOF) && c.reason == "" { // a client that hangs up is no fault
		event = event.Str("error", logs.Error(err))
	}
	if c.reason != "" {
		event = event.Str("reason", c.reason)
	}
	event.Msg("peer disconnected")
}

// closedByClient reports whether reading has ended with err because the other end has closed or reset the
// connection, without a word.
func (c *connection) closedByClient(err error) bool {
	here := c.hasEnded() || errors.Is(err, net.ErrClosed) // a goroutine of ours has closed it, and may say so in a moment
	return (!here || c.broken.Load()) && websocket.CloseStatus(err) == -1
}

func (c *connection) heard() { c.heardAt.Store(int64(time.Since(c.began))) }

// read handles messages until the connection is closed. It reads on after end, because the closing
// handshake needs a reader, but handles nothing more.
func (c *connection) read(ctx context.Context, h *hub) error {
	for {
		typ, raw, err := c.receive(ctx)
		if err != nil {
			return err
		}
		if c.hasEnded() {
			continue
		}
		c.heard()
		ok := true
		if typ == websocket.MessageText {
			ok = h.handle(&c.client, raw)
		} else {
			ok = h.refuse(&c.client, signal.CodeMalformed, errors.New("not a text message"))
		}
		if !ok {
			select {
			case <-time.After(pause):
			case <-c.ended:
			}
		}
	}
}

// receive reads one message. Once begun, it has IdleTimeout to arrive: it takes memory, and a
// client that answers pings could leave it incomplete for ever.
func (c *connection) receive(ctx context.Context) (websocket.MessageType, []byte, error) {
	typ, r, err := c.ws.Reader(ctx)
	if err != nil {
		return 0, nil, err
	}
	timeout := time.AfterFunc(c.cfg.IdleTimeout, func() {
		c.end(websocket.StatusPolicyViolation, "too slow: did not complete a message in time", nil)
	})
	defer timeout.Stop()
	raw, err := c.memory.ReadAll(r, freeMessage)
	if errors.Is(err, signal.ErrPoolFull) {
		c.end(websocket.StatusPolicyViolation, "too many long messages at a time; try again later", nil)
		_, err = io.Copy(io.Discard, r) // the closing handshake is behind it
	}
	return typ, raw, err
}

// write sends what is queued, and closes the connection when it is to end.
func (c *connection) write(ctx context.Context) {
	for {
		select {
		case <-c.ended:
			if c.farewell != nil {
				_ = c.writeOne(ctx, c.farewell) // if that fails, so does Close
			}
			_ = c.ws.Close(c.code, c.reason)
			return
		case <-ctx.Done():
			return
		case <-c.client.out.Ready():
		}
		for b, ok := c.client.out.Pop(); ok && !c.hasEnded(); b, ok = c.client.out.Pop() {
			if err := c.writeOne(ctx, b); err != nil {
				// Package websocket closes a connection after a failed write, so the reason is
				// for the log only.
				c.broken.Store(!errors.Is(err, errTooSlow))
				c.end(websocket.StatusPolicyViolation, err.Error(), nil)
				return
			}
		}
	}
}

// writeOne sends a long message in fragments: pings and pongs get in between, and a client that is slow to
// take a message from another peer stays connected as long as it takes some of it.
func (c *connection) writeOne(ctx context.Context, b []byte) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timeout := time.AfterFunc(c.cfg.IdleTimeout, func() { cancel(errTooSlow) })
	defer timeout.Stop()
	err := c.writeFragments(ctx, b, func() { timeout.Reset(c.cfg.IdleTimeout) })
	if errors.Is(context.Cause(ctx), errTooSlow) {
		return errTooSlow
	}
	return err
}

func (c *connection) writeFragments(ctx context.Context, b []byte, progress func()) error {
	if len(b) <= fragment {
		return c.ws.Write(ctx, websocket.MessageText, b)
	}
	w, err := c.ws.Writer(ctx, websocket.MessageText)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(b, fragment) {
		if _, err := w.Write(part); err != nil {
			return err
		}
		progress()
	}
	return w.Close()
}

func (c *connection) hasEnded() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// ping ends the connection of a client that is gone without a close frame.
func (c *connection) ping(ctx context.Context) {
	tick := time.NewTicker(c.cfg.PingInterval)
	defer tick.Stop()
	watching := c.watching
	for {
		select {
		case <-tick.C:
		case <-watching:
			watching = nil
			tick.Reset(min(c.cfg.PingInterval, watchPing))
		case <-c.ended:
			return
		case <-ctx.Done():
			return
		}
		pong, cancel := context.WithTimeout(ctx, c.cfg.IdleTimeout)
		err := c.ws.Ping(pong)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.broken.Store(!errors.Is(err, context.DeadlineExceeded))
			c.end(websocket.StatusPolicyViolation, "no pong in time", nil)
			return
		}
		c.heard()
	}
}
