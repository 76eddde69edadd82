package signal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// session is one WebSocket connection. run and what it calls talk to the handler; the other goroutines
// only move bytes, and tell run by channels.
type session struct {
	client  *Client
	conn    *websocket.Conn
	name    string // the URL, for errors
	token   token
	handler Handler
	out     *Queue

	registered time.Time // zero before the peer_list
	held       []Message // what came before it
}

// run makes the connection, serves it to its end and returns why it ended. The ICE servers are asked for
// meanwhile.
func (s *session) run(parent context.Context) (up time.Duration, err error) {
	ctx, fail := context.WithCancelCause(parent)
	var wg sync.WaitGroup
	ice := make(chan []ICEServer, 1)
	if s.client.cfg.FetchICE {
		wg.Go(func() { s.fetchICE(ctx, ice) })
	} else {
		ice <- nil
	}
	if s.conn, s.name, err = s.client.dial(ctx, s.token); err != nil {
		fail(nil)
		wg.Wait()
		return 0, err
	}
	in := make(chan Message)
	var ends [3]error // of the reader, the writer, and the pings
	for i, do := range []func() error{
		func() error { return s.read(ctx, in) },
		func() error { return s.write(ctx) },
		func() error { return s.ping(ctx) },
	} {
		wg.Go(func() {
			ends[i] = do()
			fail(ends[i])
		})
	}
	s.client.setOut(s.token.PeerID, s.out)
	err = s.serve(ctx, in, ice)
	s.client.setOut("", nil)
	fail(nil)
	_ = s.conn.CloseNow()
	wg.Wait()
	err = reason(ends[0], err, ends[1], ends[2])
	if !s.registered.IsZero() {
		up = time.Since(s.registered)
		s.handler.Disconnected()
	}
	return up, fmt.Errorf("%s: %w", s.name, err)
}

// reason is the first error that says more than that the connection was closed on this side, which is what
// all hear but the one who closed it. The reader's comes first: it has the server's own words.
func reason(ends ...error) error {
	for _, err := range ends {
		if !errors.Is(err, net.ErrClosed) && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return ends[0]
}

// serve registers, after the first word about ICE servers or some patience, and passes on what comes after
// that until the connection or ctx ends.
func (s *session) serve(ctx context.Context, in <-chan Message, ice <-chan []ICEServer) error {
	patience := time.After(s.client.timing.patience)
	var timeout <-chan time.Time
	var messages <-chan Message // in, once registered
	for {
		register := false
		select {
		case m := <-messages:
			s.dispatch(m)
		case servers := <-ice:
			if servers != nil {
				s.handler.ICEServers(servers)
			}
			register = messages == nil
		case <-patience:
			register = messages == nil
		case <-timeout:
			if s.registered.IsZero() {
				return fmt.Errorf("no peer_list within %v of registering", s.client.timing.register)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if register {
			timeout, messages = time.After(s.client.timing.register), in
			if err := s.client.Send(Message{Type: Register, Payload: json.RawMessage("{}")}); err != nil {
				return err
			}
		}
	}
}

func (s *session) read(ctx context.Context, in chan<- Message) error {
	for {
		_, b, err := s.conn.Read(ctx)
		if err != nil {
			return fmt.Errorf("connection lost: %w", err)
		}
		m, err := ParseMessage(b)
		if err != nil {
			s.client.cfg.Log.Warn().Err(err).Int("bytes", len(b)).Msg("unreadable signaling message dropped")
			continue
		}
		select {
		case in <- m:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *session) write(ctx context.Context) error {
	beat := time.NewTicker(s.client.timing.heartbeat)
	defer beat.Stop()
	heartbeat, err := json.Marshal(Message{Type: Heartbeat, PeerID: s.token.PeerID, Payload: json.RawMessage("{}")})
	if err != nil {
		return err
	}
	for {
		for b, ok := s.out.Pop(); ok; b, ok = s.out.Pop() {
			if err := s.writeOne(ctx, b); err != nil {
				return err
			}
		}
		select {
		case <-s.out.Ready():
		case <-beat.C:
			s.out.Push(heartbeat) // a full queue is sign of life enough
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *session) writeOne(ctx context.Context, b []byte) error {
	ctx, cancel := context.WithTimeout(ctx, s.client.timing.write)
	defer cancel()
	if err := s.conn.Write(ctx, websocket.MessageText, b); err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	return nil
}

// ping notices a server, or a way to it, that has gone without closing.
func (s *session) ping(ctx context.Context) error {
	tick := time.NewTicker(s.client.timing.ping)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		pong, cancel := context.WithTimeout(ctx, s.client.timing.pong)
		err := s.conn.Ping(pong)
		cancel()
		if err != nil {
			return fmt.Errorf("no answer to a ping within %v: %w", s.client.timing.pong, err)
		}
	}
}

// fetchICE tells of the ICE servers that came with the token, or asks for them, and again before credentials
// expire. A failure is tried again; it is no reason to drop the connection. If it is the first answer, nil
// tells of it.
func (s *session) fetchICE(ctx context.Context, ice chan<- []ICEServer) {
	for first := true; ; first = false {
		servers, wait, err := s.iceServers(ctx, first)
		if err != nil && ctx.Err() == nil {
			s.client.cfg.Log.Warn().Err(err).Msg("no ICE servers from the signaling server")
		}
		if err == nil || first {
			select {
			case ice <- servers:
			case <-ctx.Done():
				return
			}
		}
		if wait <= 0 {
			return
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

func (s *session) iceServers(ctx context.Context, first bool) (servers []ICEServer, refresh time.Duration, err error) {
	if first && s.token.ice != nil {
		return s.client.readICE("token exchange", s.token.ice)
	}
	return s.client.fetchICE(ctx, s.token)
}

// dispatch gives one message to the handler, or drops it with a log line.
func (s *session) dispatch(m Message) {
	if err := s.accept(m); err != nil {
		s.client.cfg.Log.Warn().Err(err).Str("type", shorten(m.Type)).Msg("signaling message dropped")
	}
}

func (s *session) accept(m Message) error {
	switch m.Type {
	case PeerList:
		peers, err := decodePeers(m.Payload, s.token.PeerID)
		if err != nil {
			return err
		}
		s.register(peers)
		return nil
	case ErrorType:
	case Offer, Answer, Candidate:
		if m.PeerID == "" || m.PeerID == s.token.PeerID {
			return errors.New("peer_id: must name another peer")
		}
		if m.TargetID != "" && m.TargetID != s.token.PeerID {
			return errors.New("target_id: is not us")
		}
	default:
		return errors.New("type: unknown")
	}
	if !s.registered.IsZero() {
		s.handler.Receive(m)
		return nil
	}
	// A server may relay before it has answered our register. The handler learns who it is from
	// Registered, so these wait.
	if len(s.held) >= holdLimit {
		return errors.New("too many messages before the peer_list")
	}
	s.held = append(s.held, m)
	return nil
}

// register is the arrival of a peer_list, usually the only one.
func (s *session) register(peers []string) {
	if s.registered.IsZero() {
		s.registered = time.Now()
		s.client.cfg.Log.Info().Str("peer_id", s.token.PeerID).Int("peers", len(peers)).Msg("registered with the signaling server")
		s.client.status(s.handler, Status{State: Connected, PeerID: s.token.PeerID})
	}
	s.handler.Registered(s.token.PeerID, peers)
	held := s.held
	s.held = nil
	for _, m := range held {
		s.handler.Receive(m)
	}
}

// decodePeers reads a peer_list's payload, without self, empty ids and duplicates.
func decodePeers(payload json.RawMessage, self string) ([]string, error) {
	var p PeersPayload
	if err := json.Unmarshal(payload, &p); err != nil {
		return nil, errors.New("payload: peers must be a list of strings")
	}
	slices.Sort(p.Peers)
	return slices.DeleteFunc(slices.Compact(p.Peers), func(id string) bool { return id == "" || id == self }), nil
}

// shorten bounds what a stranger's text takes in a log.
func shorten(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}
