package sidecar

import (
	"cmp"
	"slices"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// stats responds to the agent with the numbers of its links.
func (s *Sidecar) stats() {
	peers := s.livePeers()
	st := wire.Stats{Peers: make([]wire.PeerStats, 0, len(peers))}
	for _, p := range peers {
		st.Peers = append(st.Peers, p.Stats())
	}
	slices.SortFunc(st.Peers, func(a, b wire.PeerStats) int { return cmp.Compare(a.PeerID, b.PeerID) })
	s.tell(wire.FeatureStats, nil, func(b []byte) []byte { return wire.AppendStatsEvent(b, st) })
}
