//go:build !js

package rtc

import (
	"fmt"
	"time"

	"github.com/pion/webrtc/v4"
)

// A base peer has one entry for each peer id, and forgets it whenever any connection of that id has been silent for 5 s, or
// has ended: then it cannot send to us, though the connection may carry packets again, and it tells nobody. So a link
// to it ends before that, after 3 s without a response to our checks. Its connection is kept: as long as the base peer hears
// us on it, it does not end there, and so cannot take a newer link with it.

// watchBase ends a link on which our checks get no response.
func (s *session) watchBase() {
	now := time.Now()
	s.responses.look(s.lastAnswered(), now)
	if !s.responses.at.IsZero() && now.Sub(s.responses.at) > s.n.cfg.timing.baseSilence {
		s.n.park(s)
	}
}

// A sighting is what was seen last of something of which pion says when it happened, by the clock on the wall. That may be set:
// what counts is when it was seen.
type sighting struct {
	last webrtc.StatsTimestamp
	at   time.Time // zero: never
}

// look reports whether there is something new.
func (x *sighting) look(last webrtc.StatsTimestamp, now time.Time) bool {
	if last <= 0 || last == x.last {
		return false
	}
	x.last, x.at = last, now
	return true
}

// park ends the link to a base peer that does not respond, and keeps its connection. The next offer waits until the base
// peer is heard again, which has then forgotten what it was to forget, or until the old connection has ended there.
func (n *Node) park(s *session) {
	sl := s.sl
	if sl.cur != s {
		return
	}
	t := n.cfg.timing
	s.parkedAt = time.Now()
	sl.cur = nil
	sl.ended(time.Since(s.upAt) >= t.lasting)
	sl.notBefore = s.parkedAt.Add(t.baseWait)
	sl.wanted = true
	s.abandon(fmt.Errorf("%w: %w", ErrUnreachable, errNotRestartable))
	n.dialled(s)
	n.keepParked(sl, s)
	n.watchPaths()
	n.dial(sl)
}

// keepParked adds a connection to those that must not end before the link does, with a bound.
func (n *Node) keepParked(sl *slot, s *session) {
	sl.parked = append(sl.parked, s)
	if len(sl.parked) > maxParked {
		n.closeSession(sl.parked[0])
		sl.parked = sl.parked[1:]
	}
}

// watchParked makes an offer to a base peer that is heard again, and closes what is kept for no link.
func (n *Node) watchParked(sl *slot) {
	if sl.cur != nil || len(sl.parked) == 0 {
		return
	}
	if !sl.wanted {
		n.drop(sl, ErrUnreachable)
		n.tidy(sl)
		return
	}
	last := sl.parked[len(sl.parked)-1]
	if last.parkedAt.IsZero() || !last.responses.look(last.lastAnswered(), time.Now()) {
		return
	}
	last.parkedAt = time.Time{}
	sl.notBefore = time.Now().Add(n.cfg.timing.baseClosed)
	n.dial(sl)
}

// lastAnswered returns when the last response to one of our checks has arrived, as pion says; not over 0 if none has.
func (s *session) lastAnswered() (last webrtc.StatsTimestamp) {
	for _, stats := range s.pc.GetStats() {
		if pair, ok := stats.(webrtc.ICECandidatePairStats); ok {
			last = max(last, pair.LastResponseTimestamp)
		}
	}
	return last
}
