//go:build !js

package rtc

import (
	"errors"
	"time"

	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// The methods of Node in this file run in the loop.

var errNotRegistered = errors.New("it is not registered with signaling")

// registered begins or resumes what needs signaling. Peers with a link are left alone.
func (n *Node) registered(self string, l signal.PeersPayload) {
	if n.self != "" && n.self != self {
		n.log.Warn().Str("was", n.self).Str("is", self).Msg("signaling has given this agent another id")
	}
	n.self, n.online = self, true
	n.registeredAt, n.heardAt = time.Now(), time.Now()
	if sl := n.slots[self]; sl != nil && !sl.proven() { // asked for before we knew who we are
		n.connectFailed(sl, wire.CodeInvalidField, errors.New("it is this agent itself"))
		n.drop(sl, ErrClosed)
		sl.stop()
		delete(n.slots, self)
	}
	listed := n.want(l)
	for id, sl := range n.slots {
		switch {
		case sl.cur != nil:
			n.resume(sl.cur)
		case listed[id] || sl.connecting:
			n.dial(sl)
		default:
			sl.wanted = false
			stopTimer(sl.retryTimer)
		}
		n.tidy(sl)
	}
}

// want has links made to the peers that are registered, and returns the set of them.
func (n *Node) want(l signal.PeersPayload) map[string]bool {
	base := make(map[string]bool, len(l.Base))
	for _, id := range l.Base {
		base[id] = true
	}
	listed := make(map[string]bool, len(l.Peers))
	for _, id := range l.Peers {
		listed[id] = true
		if n.ending || id == n.self {
			continue
		}
		sl, bad := n.slot(id)
		if bad != nil {
			n.outside.Warn(id).Str("peer", logs.Cut(id)).Str("reason", bad.Text).Msg("peer left out")
			continue
		}
		sl.wanted = true
		sl.silence = 0
		if l.Base != nil {
			sl.steady = !base[id]
		}
	}
	return listed
}

// resume continues a session after signaling was lost: it sends all that was not delivered.
func (n *Node) resume(s *session) {
	switch {
	case s.recovering:
		if !s.offerer {
			s.sendPending() // the answer to a restart
		}
		s.hurry()
	case !s.descSent:
		s.sendPending()
	case s.up:
		s.sendPending() // candidates, of an ICE restart
	case s.sl.kind == kindExtended:
		s.sendDescription()
	case s.unanswered():
		// The offer or its answer may be lost. If the peer is a base peer and has the offer, a second
		// one would do harm until the peer has given up the first.
		n.lost(s, errors.New("signaling was interrupted"))
	}
}

// serverError handles an error message of the signaling server.
func (n *Node) serverError(e signal.ErrorPayload) {
	sl := n.slots[e.TargetID]
	if e.Code != signal.CodePeerUnavailable || sl == nil {
		n.outside.Info(e.TargetID).Str("code", logs.Cut(e.Code)).Str("peer", logs.Cut(e.TargetID)).Str("message", logs.Cut(e.Message)).Msg("signaling reports an error")
		return
	}
	// It may be about a candidate for a link that works, or that may yet.
	if sl.cur != nil && (sl.cur.described() || !sl.cur.descSent) {
		return
	}
	sl.wanted = false
	stopTimer(sl.retryTimer)
	n.outside.Info(sl.id).Str("peer", sl.id).Msg("no link: the peer is not registered with signaling")
	n.connectFailed(sl, wire.CodePeerUnavailable, errNotRegistered)
	n.drop(sl, errNotRegistered)
	if sl.held != nil {
		n.acceptHeld(sl)
	}
	n.tidy(sl)
}
