//go:build !js

package rtc

import (
	"errors"
	"fmt"
	"time"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/pace"
	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// The methods of Node in this file run in the loop.

// localError is a failure that does not depend on the peer, such as a lack of sockets.
type localError struct{ error }

func (e localError) Unwrap() error { return e.error }

func localErrorf(format string, args ...any) error { return localError{fmt.Errorf(format, args...)} }

// lost ends a session that failed, and schedules another attempt if that makes sense.
func (n *Node) lost(s *session, reason error) {
	sl := s.sl
	if sl.next == s {
		n.lostNext(sl, reason)
		return
	}
	if sl.cur != s {
		return
	}
	next := sl.next
	sl.next = nil
	here := errors.As(reason, new(localError))
	if !s.up {
		sl.missed = missed{s.whyMissed(reason), s.failures}
	}
	if s.offerer && !s.answered && s.descSent && !here {
		sl.silence++
	}
	if s.up {
		sl.ended(time.Since(s.upAt) >= n.cfg.timing.lasting)
	}
	if wait := s.baseWait(reason); wait > 0 {
		sl.notBefore = time.Now().Add(wait)
	}
	if !s.up && !here && !errors.Is(reason, ErrViolation) && !errors.Is(reason, ErrIdentity) {
		why := sl.missed
		s.onClosed = func() {
			n.outside.Info(sl.id).Err(reason).Str("peer", sl.id).Stringer("missing", why).Msg("no link to the peer yet")
		}
	}
	n.drop(sl, reason)
	switch {
	case errors.Is(reason, ErrViolation):
		n.outside.Warn(sl.id).Err(reason).Str("peer", sl.id).Msg("peer broke the protocol; link closed")
		n.connectFailed(sl, wire.CodePeerUnavailable, reason)
		sl.wanted = false
	case errors.Is(reason, ErrIdentity):
		n.refuse(sl, reason)
	case here:
		n.failedHere(sl, reason)
	case s.up:
		sl.wanted = true
	}
	switch {
	case next != nil:
		sl.cur = next // an attempt like any other now
	case sl.held != nil:
		n.acceptHeld(sl)
	default:
		n.retry(sl)
	}
}

// lostNext ends an attempt that was to replace a link, which stays.
func (n *Node) lostNext(sl *slot, reason error) {
	s := sl.next
	sl.next = nil
	s.abandon(reason)
	n.closeSession(s)
	if errors.Is(reason, ErrIdentity) {
		n.refuse(sl, reason)
		return
	}
	n.fileFailed(reason)
	n.outside.Info(sl.id).Err(reason).Str("peer", sl.id).Msg("no new link to the peer; keeping the present one")
}

// refusalRate is how many refused peers that nobody asked for are reported.
var refusalRate = pace.Rate{Burst: 20, Every: time.Second}

// refuse reports a peer that is not who it should be, once a minute if it keeps coming for the same reason. No further
// offers are made to it until signaling lists it again or Connect is called.
func (n *Node) refuse(sl *slot, reason error) {
	n.outside.Warn(sl.id).Err(reason).Str("peer", sl.id).Msg("peer refused")
	sl.wanted = false
	now := time.Now()
	known := sl.refused.After(now) && sl.refusal == reason.Error()
	if !sl.connecting && (known || n.refusals.Take(now, refusalRate) > 0) {
		return
	}
	sl.refused, sl.refusal = now.Add(n.cfg.timing.refused), reason.Error()
	sl.connecting = false
	stopTimer(sl.connectTimer)
	n.ev.ConnectFailed(sl.id, connectError(sl.id, wire.CodeIdentity, reason))
}

// failedHere reports an attempt that failed on this side. A Connect fails at once rather than at its timeout: the
// caller can do something about the reason, which the next attempt cannot.
func (n *Node) failedHere(sl *slot, err error) {
	n.outside.Warn(sl.id).Err(err).Str("peer", sl.id).Msg("cannot make a link")
	if !sl.connecting {
		n.fileFailed(err)
	}
	n.connectFailed(sl, wire.CodeInternal, err)
}

// faultRate is how many faults that links without a Connect have shown are reported.
var faultRate = pace.Rate{Burst: 1, Every: time.Minute}

// fileFailed reports an identity file that could not be used for a peer, if that is why a link has failed. The file fails
// any number of peers, so it is reported once a minute.
func (n *Node) fileFailed(err error) {
	if errors.As(err, new(*identity.FileError)) && n.faults.Take(time.Now(), faultRate) == 0 {
		n.ev.Fault(fmt.Errorf("no link to a peer: %w", err))
	}
}

// missed is why an attempt failed. pion may log why the transport failed only after it has failed, but before
// the connection is closed.
type missed struct {
	what     string
	failures *failures
}

func (m missed) String() string {
	if m.failures == nil {
		return m.what
	}
	return m.what + m.failures.suffix(transportFailure)
}

func (s *session) whyMissed(reason error) string {
	if errors.Is(reason, ErrUnreachable) {
		return s.missing()
	}
	return reason.Error()
}

// baseWait returns how long to make no offer after the end of a session: a base peer forgets us by our id, and
// must not do so when the next link is up.
func (s *session) baseWait(reason error) time.Duration {
	t := s.n.cfg.timing
	switch {
	case s.base() && errors.Is(reason, ErrIdentity):
		return t.baseClosed // it is told, since DTLS is up
	case s.base() && s.up && len(s.sl.parked) == 0 && errors.Is(reason, ErrPeerClosed):
		return t.baseClosed
	case s.base() || s.offerer && !s.answered && s.descSent && s.sl.kind != kindExtended:
		return t.baseWait
	}
	return 0
}

// drop ends all sessions with a peer, and any attempt at another.
func (n *Node) drop(sl *slot, reason error) {
	if s := sl.cur; s != nil {
		sl.cur = nil
		s.abandon(reason)
		n.closeSession(s)
		n.dialled(s)
	}
	if s := sl.next; s != nil {
		sl.next = nil
		s.abandon(reason)
		n.closeSession(s)
	}
	for _, s := range sl.parked {
		n.closeSession(s)
	}
	sl.parked = nil
}

// abandon ends all of a session but its connection.
func (s *session) abandon(reason error) {
	s.stopTimers()
	s.revoke()
	if where := s.onHost.where; where != nil && errors.Is(reason, ErrDied) {
		s.n.wg.Go(func() { sock.Tidy(where.Socket) }) // which the dead process has left behind
	}
	if s.peer != nil {
		s.peer.end(reason)
	}
}

// closeSession closes a session's connection in a goroutine, since that takes up to half a second when the
// network is gone.
func (n *Node) closeSession(s *session) {
	if s.onHost.left {
		return
	}
	s.onHost.left = true
	n.closing++
	n.wg.Go(func() {
		if err := s.pc.GracefulClose(); err != nil {
			s.debug().Err(err).Msg("PeerConnection not closed cleanly")
		}
		n.box.post(func() {
			n.closing--
			if s.sl.has(s) { // it goes on over a socket
				s.forgetWebRTC()
			}
			if s.onClosed != nil {
				s.onClosed()
			}
		})
	})
}

// forgetWebRTC lets the memory of the connection be freed.
func (s *session) forgetWebRTC() {
	s.path.Store(nil)
	s.haste = &haste{}
	if closed := s.n.api.closed(); closed != nil {
		s.pc = closed
	}
}

// transportGone handles the end of the SCTP association or of the PeerConnection, neither of which
// comes back.
func (s *session) transportGone() {
	switch {
	case s.peer == nil:
		s.n.lost(s, ErrPeerClosed)
	case s.peer.move.complete(): // the other end has closed it
		s.peer.move.gone()
		s.leaveWebRTC()
	default:
		s.peer.remoteGone()
	}
}

// transportFailed handles the failure of ICE or DTLS before the link is up; iceChanged handles later ones.
func (s *session) transportFailed() {
	if !s.up {
		s.n.lost(s, fmt.Errorf("%w: ICE, DTLS or SCTP failed", ErrUnreachable))
	}
}
