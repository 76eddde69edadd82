package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// readyTimeout bounds the way from a connection to a sidecar that answers.
const readyTimeout = 5 * time.Second

// A session is the agent's side of one link: from the hello to the end of the
// connection. A sidecar that is restarted begins a new session.
type session struct {
	m    *Mesh
	link *link
	side *launched

	ready    chan struct{} // closed once it is known what the sidecar can do
	drained  chan struct{} // closed when the sidecar said so
	ended    chan struct{} // closed when the reader has stopped
	readErr  error         // valid after ended
	features []string      // valid after ready
	// maxMessage is what the sidecar takes, 0 if it did not say; valid after ready.
	maxMessage int
	refused    error // valid after ended: the sidecar's reason to end

	// Of take alone.
	line     wire.Line
	lastType string // of a message

	readyOnce, drainedOnce sync.Once
}

// openSession says hello and waits until the sidecar has answered. Right
// behind the hello it asks for the peers: a sidecar that answers only that is a
// base-only one. No clock decides it.
func openSession(ctx context.Context, m *Mesh, side *launched) (*session, error) {
	s := &session{
		m: m, side: side, link: side.link,
		ready: make(chan struct{}), drained: make(chan struct{}), ended: make(chan struct{}),
	}
	m.work.Go(s.link.writeLoop)
	m.work.Go(s.read)

	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("no answer to hello within %v", readyTimeout))
	defer cancel()
	err := s.link.write(ctx, func(b []byte) []byte {
		b = wire.AppendHello(b, wire.Hello{Protocol: wire.ProtocolVersion, Features: features, MaxMessage: m.limits.MaxMessage, Token: side.token})
		return wire.AppendListPeers(b)
	})
	if err == nil || errors.Is(err, ErrSidecarLost) { // then the reader knows why
		select {
		case <-s.ready:
			return s, nil
		case <-s.ended:
			err = s.endError()
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	s.link.close()
	<-s.ended
	return nil, err
}

// has tells whether the sidecar knows an extension; false before ready.
func (s *session) has(feature string) bool {
	select {
	case <-s.ready:
		return slices.Contains(s.features, feature)
	default:
		return false
	}
}

func (s *session) endError() error {
	if s.refused != nil {
		return s.refused
	}
	if s.readErr == nil {
		return errors.New("the sidecar closed the connection")
	}
	return fmt.Errorf("connection to the sidecar: %w", s.readErr)
}

// read handles events until the connection ends.
func (s *session) read() {
	defer close(s.ended)
	defer s.link.close()
	s.link.serve(never, s.take)
}

// take handles one event, or what was wrong with it. It never waits, and must not
// write messages, only control lines: the sidecar may be holding locks meanwhile.
func (s *session) take(line []byte, err error) bool {
	if err == nil {
		// The copy is what the message keeps: one for all of its parts.
		err = wire.ParseEvent(bytes.Clone(line), s.m.limits, &s.line)
	} else if badLine(err) == nil {
		s.readErr = err
		return false
	}
	if err == nil {
		err = s.event(&s.line)
	}
	if err != nil {
		s.reject(err)
	}
	return true
}

// typeName makes a string of a message type. Most messages are of the same type
// as the one before.
func (s *session) typeName(b []byte) string {
	if string(b) != s.lastType {
		s.lastType = string(b)
	}
	return s.lastType
}

// reject reports what the sidecar sent and this package cannot read. It is no
// reason to end: the next line may be fine.
func (s *session) reject(err error) {
	s.m.report(fmt.Errorf("mesh: line from the sidecar rejected: %w", err))
}

func (s *session) event(e *wire.Line) error {
	m := s.m
	if e.Type == wire.TypeMessage {
		m.receive(e.Peer, s.typeName(e.Message.Type), &e.Message)
		return nil
	}
	peer := string(e.Peer)
	switch e.Type {
	case wire.TypePeerConnected:
		m.peerConnected(peer)
	case wire.TypePeerDisconnected:
		m.peerDisconnected(peer, ErrPeerGone)
	case wire.TypePause:
		if e.All {
			m.setStop(peer, stopAll)
		} else {
			m.setStop(peer, stopNewWork)
		}
	case wire.TypeResume:
		m.setStop(peer, stopNothing)
	case wire.TypeCancel:
		m.cancelled(peer, string(e.RequestID))
	case wire.TypeReady:
		return s.onReady(e.Payload)
	case wire.TypePeerList:
		return s.onPeerList(e.Payload)
	case wire.TypeSignaling:
		return s.onSignaling(e.Payload)
	case wire.TypeError:
		return s.onError(e.Payload)
	case wire.TypeDrained:
		s.drainedOnce.Do(func() { close(s.drained) })
	}
	return nil
}

func (s *session) onReady(payload []byte) error {
	ready, err := wire.DecodeHello(payload)
	if err != nil {
		return err
	}
	s.readyOnce.Do(func() {
		s.features, s.maxMessage = ready.Features, ready.MaxMessage
		s.m.begin(s)
		close(s.ready)
	})
	return nil
}

// onPeerList takes the first answer to list_peers, which tells of the peers
// that were there before us, and, if no ready came before it, that the sidecar
// knows the base protocol only.
func (s *session) onPeerList(payload []byte) error {
	peers, err := wire.DecodePeerList(payload)
	if err != nil {
		return err
	}
	s.readyOnce.Do(func() {
		s.m.begin(s)
		close(s.ready)
	})
	for _, p := range peers {
		s.m.peerConnected(p)
	}
	return nil
}

func (s *session) onSignaling(payload []byte) error {
	st, err := wire.DecodeSignaling(payload)
	if err != nil {
		return err
	}
	status := SignalingStatus{State: SignalingState(st.State), PeerID: st.PeerID}
	switch {
	case status.State == SignalingRefused:
		status.Err = fmt.Errorf("%w: %s", ErrRefused, st.Error)
	case st.Error != "":
		status.Err = errors.New(st.Error)
	}
	s.m.setSignaling(status)
	return nil
}

// onError finds out whom an error is for: a pending request, a Connect, or
// nobody who waits.
func (s *session) onError(payload []byte) error {
	e, err := wire.DecodeErrorEvent(payload)
	if err != nil {
		return err
	}
	cause := fmt.Errorf("%w: %s", codeError(e.Code), e.Message)
	switch {
	case e.Code == wire.CodeUnauthorized:
		s.refused = cause
		return nil
	case e.Command == wire.TypeConnect.String():
		if s.m.connectFailed(e.TargetPeer, cause) {
			return nil
		}
	case e.RequestID != "":
		if s.m.calls.fail(e.TargetPeer, e.RequestID, cause) {
			return nil
		}
	}
	s.m.report(&PeerError{Op: first(e.Command, "link"), Peer: e.TargetPeer, RequestID: e.RequestID, Err: cause})
	return nil
}

// codeError maps the code of an error event to the sentinel that callers test for.
func codeError(c wire.Code) error {
	switch c {
	case wire.CodePeerNotConnected, wire.CodePeerUnavailable:
		return ErrUnknownPeer
	case wire.CodePeerLost:
		return ErrPeerGone
	case wire.CodeTooLarge, wire.CodeTooDeep:
		return ErrTooLarge
	case wire.CodeQueueFull:
		return ErrCongested
	case wire.CodeMalformed, wire.CodeInvalidField, wire.CodeUnknownType:
		return ErrInvalid
	case wire.CodeUnauthorized:
		return errUnauthorized
	}
	return errors.New("mesh: sidecar error " + string(c))
}

// sentinel is codeError for an error of the codec.
func sentinel(err, otherwise error) error {
	if w := (*wire.Error)(nil); errors.As(err, &w) {
		return codeError(w.Code)
	}
	return otherwise
}

// close drains the link, if the sidecar can, and ends it. The sidecar itself is
// ended by the caller.
func (s *session) close(ctx context.Context) {
	if s.has(wire.FeatureDrain) && s.link.writeNow(nil, wire.AppendDrain) == nil {
		select {
		case <-s.drained:
		case <-s.ended:
		case <-ctx.Done():
		}
	} else {
		_ = s.link.flush(ctx) // a base-only sidecar sends what it has read
	}
	s.link.close()
	<-s.ended
}
