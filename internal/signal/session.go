package signal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	refresh time.Duration // until the next fetch of ICE servers, 0 for never
	out     *Queue

	registered time.Time // zero before the peer_list
	held       []Message // what came before it
}

// run serves the connection to its end and returns why it ended.
func (s *session) run(parent context.Context) (up time.Duration, err error) {
	ctx, fail := context.WithCancelCause(parent)
	var wg sync.WaitGroup
	var closed error // set by the reader
	in := make(chan Message)
	ice := make(chan []ICEServer)
	wg.Go(func() {
		err := s.read(ctx, in)
		if websocket.CloseStatus(err) != -1 {
			closed = err
		}
		fail(err)
	})
	wg.Go(func() { fail(s.write(ctx)) })
	wg.Go(func() { fail(s.ping(ctx)) })
	if s.refresh > 0 {
		wg.Go(func() { s.refreshICE(ctx, ice) })
	}
	s.client.setOut(s.token.PeerID, s.out)
	err = s.serve(ctx, in, ice)
	s.client.setOut("", nil)
	fail(nil)
	_ = s.conn.CloseNow()
	wg.Wait()
	if closed != nil {
		err = closed // the server's own words, even if a write has failed sooner
	}
	if !s.registered.IsZero() {
		up = time.Since(s.registered)
		s.handler.Disconnected()
	}
	return up, fmt.Errorf("%s: %w", s.name, err)
}

// serve registers and passes on what comes until the connection or ctx ends.
func (s *session) serve(ctx context.Context, in <-chan Message, ice <-chan []ICEServer) error {
	if err := s.client.Send(Message{Type: Register, Payload: json.RawMessage("{}")}); err != nil {
		return err
	}
	timeout := time.NewTimer(s.client.timing.register)
	defer timeout.Stop()
	for {
		select {
		case m := <-in:
			s.dispatch(m)
		case servers := <-ice:
			s.handler.ICEServers(servers)
		case <-timeout.C:
			if s.registered.IsZero() {
				return fmt.Errorf("no peer_list within %v of registering", s.client.timing.register)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
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

// refreshICE fetches the ICE servers again before credentials expire. A failure is tried again; it is
// no reason to drop the connection.
func (s *session) refreshICE(ctx context.Context, ice chan<- []ICEServer) {
	for wait := s.refresh; wait > 0; {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		servers, next, err := s.client.fetchICE(ctx, s.token)
		wait = next
		if err != nil {
			s.client.cfg.Log.Warn().Err(err).Msg("ICE servers not refreshed")
			continue
		}
		select {
		case ice <- servers:
		case <-ctx.Done():
			return
		}
	}
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
