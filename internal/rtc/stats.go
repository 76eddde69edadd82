//go:build !js

package rtc

import (
	"net"
	"strconv"

	"github.com/pion/webrtc/v4"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// Stats returns the numbers of the link. It may be called from any goroutine, and asks nobody.
func (p *Peer) Stats() wire.PeerStats { return p.stats() }

func (s *session) stats() wire.PeerStats {
	st := wire.PeerStats{
		PeerID: s.sl.id, RoundTrip: int(s.roundTrip().Microseconds()), Queued: s.peer.Queued(), Outages: int(s.outages.Load()),
	}
	if s.onHost.moved.Load() {
		st.Path, st.RoundTrip = wire.PathLocal, 0
		return st
	}
	path := s.path.Load()
	if path == nil {
		return st
	}
	pair, err := path.GetSelectedCandidatePair()
	if err != nil || pair == nil {
		return st
	}
	st.Path, st.Local, st.Remote = wire.PathDirect, address(pair.Local), address(pair.Remote)
	if passesRelay(pair) {
		st.Path = wire.PathRelayed
	}
	return st
}

func pathOf(st wire.PeerStats) [3]string { return [3]string{st.Path, st.Local, st.Remote} }

// pathChanged tells of the path that a link has moved to.
func (s *session) pathChanged() {
	if !s.up {
		return
	}
	if path := pathOf(s.stats()); path != s.toldPath {
		s.toldPath = path
		s.peer.emit(func() { s.peer.ev.PeerPath(s.peer) })
	}
}

// passesRelay reports whether a path passes a relay of this or the other side.
func passesRelay(pair *webrtc.ICECandidatePair) bool {
	return pair.Local.Typ == webrtc.ICECandidateTypeRelay || pair.Remote.Typ == webrtc.ICECandidateTypeRelay
}

func address(c *webrtc.ICECandidate) string {
	return net.JoinHostPort(c.Address, strconv.Itoa(int(c.Port)))
}
