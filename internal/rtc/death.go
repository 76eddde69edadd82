//go:build !js

package rtc

import (
	"time"

	"github.com/pion/webrtc/v4"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// A peer whose process ends falls silent on its link and on signaling at once. One that is cut off falls silent first, and
// its connection to signaling ends later. So signaling's word that a peer has left is a reason to look, no more: what
// decides is when the link was heard last, and that it stays silent.

// left handles signaling's word that a peer's process has probably ended.
func (n *Node) left(l signal.LeftPayload) {
	sl := n.slots[l.PeerID]
	if sl == nil || sl.cur == nil || !sl.cur.up || sl.cur.onHost.moved.Load() || l.Ago < 0 {
		return
	}
	s := sl.cur
	s.leftAt = time.Now().Add(-time.Duration(min(l.Ago, time.Minute.Milliseconds())) * time.Millisecond)
	s.judge()
}

// alive handles a sign of life that a peer has given by signaling.
func (n *Node) alive(sl *slot) {
	if sl.cur != nil {
		sl.cur.leftAt = time.Time{}
		stopTimer(sl.cur.judging)
	}
}

// judge ends the link to a peer that has left, once it has been silent for long enough, unless something says that it may
// be alive.
func (s *session) judge() {
	stopTimer(s.judging)
	t := s.n.cfg.timing
	if now := s.lastHeard(); !s.recovering || s.doubtful && now.After(s.heardAt) {
		s.heardAt = now // of a path in doubt checks may say that the peer lives
	}
	heard := s.heardAt
	near := s.checks.keepalive + s.checks.keepalive/4 // the time between two checks, and what their packets may take
	cutFirst := s.leftAt.Sub(heard) > near
	heardLater := heard.Sub(s.leftAt) > near
	since := heard
	if s.cutOffAt.After(since) { // its packets have had no way until then
		since = s.cutOffAt
	}
	switch wait := t.dead - time.Since(since); {
	case s.leftAt.IsZero() || cutFirst || heardLater:
	case wait > 0:
		s.judging = s.after(wait, s.judge)
	case !s.recovering:
		s.judging = s.after(t.watch, s.judge)
	case !s.n.online || !s.n.hearsOthers(s):
		s.cutOffAt = time.Now()
		s.judging = s.after(t.watch, s.judge)
	default:
		s.n.lost(s, ErrDied)
	}
}

// hearsOthers reports whether this host's own network works, as far as the links to other peers say. Peers that have left
// say nothing.
func (n *Node) hearsOthers(s *session) bool {
	others := 0
	for _, sl := range n.slots {
		if o := sl.cur; o != nil && o != s && o.up && o.leftAt.IsZero() && !o.onHost.moved.Load() {
			if !o.recovering && time.Since(o.lastHeard()) < o.checks.disconnected {
				return true
			}
			others++
		}
	}
	return others == 0
}

// lastHeard returns when something of the peer's has arrived last on any path that ICE knows.
func (s *session) lastHeard() time.Time {
	var last webrtc.StatsTimestamp
	for _, stats := range s.pc.GetStats() {
		if pair, ok := stats.(webrtc.ICECandidatePairStats); ok {
			last = max(last, pair.LastResponseTimestamp, pair.LastPacketReceivedTimestamp)
		}
	}
	return last.Time()
}
