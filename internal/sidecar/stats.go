package sidecar

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// stats responds to the agent with the numbers of its links.
func (s *Sidecar) stats() {
	peers := s.livePeers()
	st := wire.Stats{Peers: make([]wire.PeerStats, 0, len(peers)), Dropped: int(s.dropped.Load() + s.badLines.Load() + s.badPeerLines.Load())}
	for _, p := range peers {
		st.Peers = append(st.Peers, p.stats())
	}
	slices.SortFunc(st.Peers, func(a, b wire.PeerStats) int { return cmp.Compare(a.PeerID, b.PeerID) })
	s.tell(wire.FeatureStats, nil, func(b []byte) []byte { return wire.AppendStatsEvent(b, st) })
}

// A traffic counts what passes in one direction.
type traffic struct{ messages, bytes atomic.Int64 }

func (t *traffic) message(bytes int) {
	t.messages.Add(1)
	t.bytes.Add(int64(bytes))
}

// stats returns the numbers of the link.
func (p *peer) stats() wire.PeerStats {
	st := p.Stats()
	st.MessagesSent, st.BytesSent = int(p.out.messages.Load()), int(p.out.bytes.Load())
	st.MessagesReceived, st.BytesReceived = int(p.in.messages.Load()), int(p.in.bytes.Load())
	st.Streams = p.sidecar.streams.with(p.ID())
	p.mu.Lock()
	defer p.mu.Unlock()
	st.HeldBack, st.Paused = p.told.Last.agent.String(), p.told.Last.pause.String()
	if p.told.Last.unread {
		st.Paused = wire.StopAll.String()
	}
	return st
}
