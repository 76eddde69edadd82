package rtc

import (
	"errors"
	"fmt"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// The methods of Node in this file run in the loop.

// lost ends a session that failed, and tries again if that makes sense.
func (n *Node) lost(s *session, reason error) {
	sl := s.sl
	if sl.cur != s {
		return
	}
	s.log.Debug().Err(reason).Bool("up", s.up).Msg("session ended")
	if !s.up {
		sl.missed = s.missing()
		if errors.Is(reason, ErrUnreachable) {
			n.outside.Info().Err(reason).Str("peer", sl.id).Str("missing", sl.missed).Msg("no link to the peer yet")
		}
	}
	if s.offerer && !s.answered && s.descSent {
		sl.silence++
	}
	if wait := s.baseWait(reason); wait > 0 {
		sl.notBefore = time.Now().Add(wait)
	}
	n.drop(sl, reason)
	if errors.Is(reason, ErrViolation) {
		n.outside.Warn().Err(reason).Str("peer", sl.id).Msg("link closed, not trying again")
		n.connectFailed(sl, wire.CodePeerUnavailable, reason)
		sl.wanted = false
	} else if s.up {
		sl.wanted = true
	}
	if sl.held != nil {
		n.acceptHeld(sl)
		return
	}
	n.retry(sl)
}

// baseWait is how long to offer nothing after the end of a session, so that a peer which forgets us by
// our id, whichever connection ends, does not forget the next link.
func (s *session) baseWait(reason error) time.Duration {
	t := s.n.cfg.timing
	switch {
	case s.base() && s.up && len(s.sl.parked) == 0 && errors.Is(reason, ErrPeerClosed):
		return t.baseClosed
	case s.base() || s.offerer && !s.answered && s.descSent && s.sl.kind != kindExtended:
		return t.baseWait
	}
	return 0
}

// drop ends whatever links there are to a peer.
func (n *Node) drop(sl *slot, reason error) {
	if s := sl.cur; s != nil {
		sl.cur = nil
		s.abandon(reason)
		n.closeSession(s)
		n.dialled(s)
	}
	for _, s := range sl.parked {
		n.closeSession(s)
	}
	sl.parked = nil
}

// abandon ends a session but for its connection.
func (s *session) abandon(reason error) {
	s.stopTimers()
	if s.peer != nil {
		s.peer.end(reason)
	}
}

// closeSession closes the connection in a goroutine, since that takes up to half a second when the
// network does not take the goodbye.
func (n *Node) closeSession(s *session) {
	n.closing++
	n.wg.Go(func() {
		if err := s.pc.GracefulClose(); err != nil {
			s.log.Debug().Err(err).Msg("close the PeerConnection")
		}
		n.box.post(func() { n.closing-- })
	})
}

// transportGone follows the end of the SCTP association or of the PeerConnection, neither of which
// comes back.
func (s *session) transportGone() {
	if s.peer != nil {
		s.peer.reading.remoteGone() // the reader reads what has arrived, and then ends the link
		return
	}
	s.n.lost(s, ErrPeerClosed)
}

func (s *session) transportFailed() {
	if !s.up {
		s.n.lost(s, fmt.Errorf("%w: ICE or DTLS failed", ErrUnreachable))
	}
}
