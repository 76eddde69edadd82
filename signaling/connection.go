package signaling

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// closeGrace is how long a client has for the closing handshake.
const closeGrace = time.Second

// busyPause is how long nothing more is read from a peer whose message was refused as busy: it slows a
// flood, and an honest peer's burst of candidates only a little.
const busyPause = 10 * time.Millisecond

// session is one WebSocket connection. Its reader runs in the HTTP handler's goroutine and ends last.
type session struct {
	member member
	cfg    *Config
	log    zerolog.Logger
	conn   *websocket.Conn

	once   sync.Once
	ended  chan struct{} // closed by end
	code   websocket.StatusCode
	reason string
}

// fragment is the longest message that is sent in one piece.
const fragment = 16 << 10

var (
	errClosed  = errors.New("the server is shutting down")
	errFull    = errors.New("the server has no free connections")
	errTooSlow = errors.New("too slow: a message was not taken in time")
)

func (s *Server) handleWebSocket(w http.ResponseWriter, r *http.Request) {
	token := r.URL.Query().Get("token")
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		token = bearer
	}
	k, err := s.verify(token)
	if err != nil {
		s.log.Warn().Str("remote", r.RemoteAddr).Err(err).Msg("WebSocket refused")
		writeError(w, http.StatusUnauthorized, "invalid token: get one from /api/token")
		return
	}
	sess := &session{
		cfg:   &s.cfg,
		log:   s.log.With().Str("peer_id", k.PeerID).Logger(),
		ended: make(chan struct{}),
	}
	sess.member = member{id: k.PeerID, out: signal.NewQueue(s.cfg.MaxQueue), end: sess.end}
	if err := s.admit(sess); err != nil {
		s.log.Warn().Str("peer_id", k.PeerID).Str("remote", r.RemoteAddr).Err(err).Msg("WebSocket refused")
		writeError(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	defer s.dismiss(sess)
	// No origin check: it protects cookies, and there are none. Whoever has the token may connect.
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		sess.log.Debug().Err(err).Msg("WebSocket handshake failed")
		return
	}
	conn.SetReadLimit(int64(s.cfg.MaxMessage))
	sess.conn = conn
	sess.log.Info().Str("remote", r.RemoteAddr).Str("role", k.Role).Msg("peer connected")
	s.hub.join(&sess.member)
	defer s.hub.leave(&sess.member)
	sess.run(s.hub)
}

// admit counts sess, if there is room.
func (s *Server) admit(sess *session) error {
	// A peer whose connection is half dead must get in even when the server is full.
	returning := s.hub.find(sess.member.id) != nil
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	if len(s.sessions) >= s.cfg.MaxConnections && !returning {
		return errFull
	}
	s.sessions[sess] = struct{}{}
	s.wg.Add(1)
	return nil
}

func (s *Server) dismiss(sess *session) {
	s.mu.Lock()
	delete(s.sessions, sess)
	s.mu.Unlock()
	s.wg.Done()
}

// end makes the session end, telling the client why. It does not wait, and the first call decides.
func (sess *session) end(code websocket.StatusCode, reason string) {
	sess.once.Do(func() {
		sess.code, sess.reason = code, reason
		close(sess.ended)
	})
}

// run serves the connection to its end.
func (sess *session) run(h *hub) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { sess.write(ctx) })
	wg.Go(func() { sess.ping(ctx) })
	wg.Go(func() {
		// The library waits for 5 s twice in its closing handshake; ending the context cuts it short.
		select {
		case <-sess.ended:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(closeGrace):
			cancel()
		case <-ctx.Done():
		}
	})
	err := sess.read(ctx, h)
	cancel()
	_ = sess.conn.CloseNow()
	wg.Wait() // before the end: the others may know better why reading has failed
	sess.end(websocket.StatusNormalClosure, "")
	sess.log.Info().Err(err).Str("reason", sess.reason).Msg("peer disconnected")
}

// read handles messages until the connection is closed. It reads on after end, because the closing
// handshake needs a reader, but handles nothing more.
func (sess *session) read(ctx context.Context, h *hub) error {
	for {
		typ, raw, err := sess.conn.Read(ctx)
		if err != nil {
			return err
		}
		select {
		case <-sess.ended:
			continue
		default:
		}
		if typ != websocket.MessageText {
			h.refuse(&sess.member, signal.CodeMalformed, errors.New("not a text message"))
			continue
		}
		if h.handle(&sess.member, raw) {
			select {
			case <-time.After(busyPause):
			case <-sess.ended:
			}
		}
	}
}

// write sends what is queued, and closes the connection when the session is to end.
func (sess *session) write(ctx context.Context) {
	for {
		select {
		case <-sess.ended:
			_ = sess.conn.Close(sess.code, sess.reason)
			return
		case <-ctx.Done():
			return
		case <-sess.member.out.Ready():
		}
		for b, ok := sess.member.out.Pop(); ok && !sess.hasEnded(); b, ok = sess.member.out.Pop() {
			if err := sess.writeOne(ctx, b); err != nil {
				// The library closes a connection after a failed write: the reason is for the log.
				sess.end(websocket.StatusPolicyViolation, err.Error())
				return
			}
		}
	}
}

// writeOne sends a long message in fragments: pings and pongs get in between, and a client that takes
// long for what others send is not cut as long as it takes something.
func (sess *session) writeOne(ctx context.Context, b []byte) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timeout := time.AfterFunc(sess.cfg.IdleTimeout, func() { cancel(errTooSlow) })
	defer timeout.Stop()
	err := sess.writeFragments(ctx, b, func() { timeout.Reset(sess.cfg.IdleTimeout) })
	if errors.Is(context.Cause(ctx), errTooSlow) {
		return errTooSlow
	}
	return err
}

func (sess *session) writeFragments(ctx context.Context, b []byte, progress func()) error {
	if len(b) <= fragment {
		return sess.conn.Write(ctx, websocket.MessageText, b)
	}
	w, err := sess.conn.Writer(ctx, websocket.MessageText)
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

func (sess *session) hasEnded() bool {
	select {
	case <-sess.ended:
		return true
	default:
		return false
	}
}

// ping finds out when a client is gone without a word.
func (sess *session) ping(ctx context.Context) {
	tick := time.NewTicker(sess.cfg.PingInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-sess.ended:
			return
		case <-ctx.Done():
			return
		}
		pong, cancel := context.WithTimeout(ctx, sess.cfg.IdleTimeout)
		err := sess.conn.Ping(pong)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			sess.end(websocket.StatusPolicyViolation, "no answer to a ping")
			return
		}
	}
}
