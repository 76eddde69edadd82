//go:build !js

package rtc

import (
	"net/netip"
	"slices"
	"time"

	"github.com/pion/webrtc/v4"

	"github.com/chatixia-ai/mesh/internal/hostaddr"
)

// ICE's own checks say that a path carries checks. Whether it carries anything else is known from what SCTP gets back
// while it has something to send: it repeats that every second, and the other end acknowledges each time, also if nobody
// reads there.

// arrivals is what is known of the packets of SCTP, or DTLS, that arrive.
type arrivals struct {
	sighting
	since time.Time // something has not been acknowledged since; zero if there is nothing
}

// watchPaths looks at the paths of all links, again and again while there are any.
func (n *Node) watchPaths() {
	if n.watching != nil {
		return
	}
	n.watching = time.AfterFunc(n.cfg.timing.watch, func() {
		n.box.post(func() {
			n.watching = nil
			for _, sl := range n.slots {
				if n.watchSlot(sl) {
					n.watchPaths()
				}
			}
		})
	})
}

// watchSlot reports whether there is a path to look at again.
func (n *Node) watchSlot(sl *slot) bool {
	n.watchParked(sl)
	s := sl.cur
	if s == nil || !s.up || s.onHost.moved.Load() {
		return len(sl.parked) > 0
	}
	if s.quiet() {
		s.arrivals.since = time.Time{}
	} else {
		s.watchProgress(time.Now())
		if s.remote.restart {
			s.watchPath()
		}
	}
	if s.base() {
		s.watchBase()
	}
	return true
}

// quiet reports whether nothing was sent since a look at which everything was acknowledged. Most links are, most of the time.
func (s *session) quiet() bool {
	return !s.doubtful && !s.twice.on.Load() && !s.progress.waits && s.progress.acknowledged == s.peer.transit.handed.Load()
}

// watchPath repairs a link whose path carries checks and nothing else, and ends the repair when it does.
func (s *session) watchPath() {
	now := time.Now()
	switch {
	case s.recovering && !s.doubtful:
		s.arrivals.since = time.Time{}
		return
	case s.peer.transit.waiting() == 0 && !s.doubtful:
		s.arrivals.since = time.Time{}
		return
	case s.arrivals.since.IsZero():
		s.arrivals.since = now
	}
	s.noteArrivals(now)
	switch {
	case s.recovering && s.iceConnected() && s.pathProven():
		s.restored()
	case !s.recovering && s.silentFor(now) >= s.n.cfg.timing.silence:
		s.n.outside.Info(s.sl.id).Str("peer", s.sl.id).Msg("path carries checks, but no data")
		s.interruptedInDoubt()
	}
}

// pathProven reports whether something has arrived, or was acknowledged, since the interruption, even if that was before we knew of
// ICE's path, or before pion had selected a pair, without which it does not count what arrives. Nothing more comes on an idle link.
func (s *session) pathProven() bool {
	_, acknowledged := s.peer.transit.count()
	return s.arrivals.at.After(s.cutAt) || acknowledged > s.acknowledged
}

// silentFor returns how long nothing has arrived although something should have.
func (s *session) silentFor(now time.Time) time.Duration {
	if s.arrivals.at.After(s.arrivals.since) {
		return now.Sub(s.arrivals.at)
	}
	return now.Sub(s.arrivals.since)
}

// noteArrivals notes whether a packet has arrived since the last call.
func (s *session) noteArrivals(now time.Time) {
	stats, ok := s.pc.SCTP().Transport().ICETransport().GetSelectedCandidatePairStats()
	if ok {
		s.arrivals.look(stats.LastPacketReceivedTimestamp, now)
	}
}

func (s *session) iceConnected() bool {
	return s.ice == webrtc.ICEConnectionStateConnected || s.ice == webrtc.ICEConnectionStateCompleted
}

// interruptedInDoubt is interrupted for a link whose path ICE takes for good. The repair ends only when a packet has
// arrived, if one is to.
func (s *session) interruptedInDoubt() {
	s.noteArrivals(time.Now()) // what has arrived until now does not count
	// Without drain nothing comes over a path that works if nothing is on its way.
	s.doubtful = s.peer.drains || s.peer.Queued() > 0 || s.peer.transit.waiting() > 0
	s.peer.poke()
	s.interrupted()
}

// doubt has the path tested, since the other end has none.
func (s *session) doubt() {
	if s.doubting != nil || !s.peer.drains {
		return
	}
	s.noteArrivals(time.Now())
	seen := s.arrivals.last // the watch looks, too
	s.peer.poke()
	s.doubting = s.after(s.n.cfg.timing.doubt, func() {
		s.doubting = nil
		s.noteArrivals(time.Now())
		if !s.recovering && s.arrivals.last == seen {
			s.interruptedInDoubt()
			s.hurry()
		}
	})
}

// pathGone reports whether the address that the path begins with is not among those of this host.
func (s *session) pathGone(addrs []hostaddr.Addr) bool {
	pair, err := s.pc.SCTP().Transport().ICETransport().GetSelectedCandidatePair()
	if err != nil || pair == nil {
		return false
	}
	text := pair.Local.Address
	if pair.Local.RelatedAddress != "" { // that of the socket
		text = pair.Local.RelatedAddress
	}
	addr, err := netip.ParseAddr(text)
	return err == nil && !addr.IsUnspecified() && !slices.ContainsFunc(addrs, func(a hostaddr.Addr) bool {
		return a.IP.WithZone("") == addr.Unmap().WithZone("")
	})
}
