package rtc

import (
	"errors"
	"fmt"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// The methods of Node in this file run in the loop.

// slot returns the slot of a peer, a new one if need be, or nil if there are too many.
func (n *Node) slot(id string) *slot {
	if id == "" || id == n.self || len(id) > maxIDLength {
		return nil
	}
	sl := n.slots[id]
	if sl == nil {
		if len(n.slots) >= maxSlots {
			n.outside.Warn().Str("peer", id).Int("limit", maxSlots).Msg("peer left out, there are too many")
			return nil
		}
		sl = &slot{id: id}
		n.slots[id] = sl
	}
	return sl
}

// tidy forgets a slot that has nothing to remember, or comes back to it when that may be so.
func (n *Node) tidy(sl *slot) {
	now := time.Now()
	if sl.idle(now) {
		sl.stop()
		delete(n.slots, sl.id)
		return
	}
	if sl.cur != nil || sl.wanted || sl.connecting || sl.held != nil || sl.sweep != nil {
		return
	}
	// Early candidates whose offer never came, or the end of a base peer's wait.
	wait := max(n.cfg.ConnectTimeout, time.Until(sl.notBefore))
	sl.sweep = n.after(sl, wait, func() {
		sl.sweep = nil
		if sl.cur == nil {
			sl.early = nil
		}
		n.tidy(sl)
	})
}

// after runs f in the loop unless the slot is gone by then.
func (n *Node) after(sl *slot, d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() {
		n.box.post(func() {
			if n.slots[sl.id] == sl {
				f()
			}
		})
	})
}

func (n *Node) connect(id string) {
	sl := n.slot(id)
	switch {
	case n.ending:
		n.ev.ConnectFailed(id, &wire.Error{Code: wire.CodePeerUnavailable, Text: "peer " + quote(id) + ": " + ErrClosed.Error()})
		return
	case sl == nil:
		n.ev.ConnectFailed(id, &wire.Error{Code: wire.CodeInvalidField, Text: "peer " + quote(id) +
			": it is empty, too long, this agent itself, or one too many"})
		return
	case sl.cur != nil && sl.cur.up:
		return
	}
	sl.wanted = true
	sl.silence = 0
	if !sl.connecting {
		sl.connecting = true
		sl.missed = ""
		sl.connect = n.after(sl, n.cfg.ConnectTimeout, func() {
			n.connectFailed(sl, wire.CodePeerUnavailable,
				fmt.Errorf("no link within %s, still trying%s", n.cfg.ConnectTimeout, sl.missing()))
		})
	}
	n.dial(sl)
}

func (n *Node) connectFailed(sl *slot, code wire.Code, err error) {
	if !sl.connecting {
		return
	}
	sl.connecting = false
	stopTimer(sl.connect)
	n.ev.ConnectFailed(sl.id, &wire.Error{Code: code, Text: "peer " + quote(sl.id) + ": " + err.Error()})
}

func quote(id string) string { return fmt.Sprintf("%q", id) }

// registered begins or resumes what needs signaling. Peers that have a link are left alone.
func (n *Node) registered(self string, peers []string) {
	if n.self != "" && n.self != self {
		n.log.Warn().Str("was", n.self).Str("is", self).Msg("signaling knows this agent under another id now")
	}
	n.self, n.online = self, true
	if sl := n.slots[self]; sl != nil { // asked for before we knew who we are
		n.connectFailed(sl, wire.CodeInvalidField, errors.New("it is this agent itself"))
		n.drop(sl, ErrClosed)
		sl.stop()
		delete(n.slots, self)
	}
	listed := make(map[string]bool, len(peers))
	for _, id := range peers {
		listed[id] = true
		if sl := n.slot(id); sl != nil && !n.ending {
			sl.wanted = true
			sl.silence = 0
		}
	}
	for id, sl := range n.slots {
		switch {
		case sl.cur != nil:
			n.resume(sl.cur)
		case listed[id] || sl.connecting:
			n.dial(sl)
		default:
			sl.wanted = false
			stopTimer(sl.retry)
		}
		n.tidy(sl)
	}
}

// resume goes on with a session after signaling was lost, with all that it had not delivered.
func (n *Node) resume(s *session) {
	switch {
	case s.recovering && s.offerer:
		s.restarts = 0
		s.restartICE()
	case !s.descSent:
		s.send()
	case s.up:
		s.send() // candidates, of an ICE restart
	case s.sl.kind == kindExtended:
		s.sendAgain()
	case s.waiting():
		// The offer or its answer may be lost. Should the peer be a base peer that has it, a second
		// one would do harm until it has given up the first.
		n.lost(s, errors.New("signaling was interrupted"))
	}
}

func (n *Node) redial(sl *slot, d time.Duration) {
	stopTimer(sl.retry)
	sl.retry = n.after(sl, d, func() { n.dial(sl) })
}

// retry dials again after a while, longer each time.
func (n *Node) retry(sl *slot) {
	if sl.silence >= maxSilence {
		n.log.Info().Str("peer", sl.id).Int("offers", sl.silence).Msg("peer does not answer, waiting for its own offer")
		sl.wanted = false
	}
	if sl.wanted {
		t := n.cfg.timing
		n.redial(sl, backoff(t.backoffMin, t.backoffMax, sl.failures))
		sl.failures++
	}
	n.tidy(sl)
}

// attempts counts the links that are being made.
func (n *Node) attempts() (count int) {
	for _, sl := range n.slots {
		if sl.cur != nil && !sl.cur.up {
			count++
		}
	}
	return count
}

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
