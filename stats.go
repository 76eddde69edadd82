package mesh

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// Stats are the numbers of a mesh at one moment.
type Stats struct {
	Peers []PeerStats // those whose links are live, sorted by id
}

// PeerStats are the numbers of the link to one peer.
type PeerStats struct {
	Peer
	// Path is how the link reaches the peer; "" if that is not known.
	Path Path
	// Local and Remote are the two ends of the path: of a relayed one, as far as this
	// agent sees it, which is the relay's end. The zero AddrPort if not known.
	Local, Remote netip.AddrPort
	// RTT is the round trip time that ICE has measured last, which it does every few
	// seconds; 0 if it has not yet.
	RTT time.Duration
}

// A Path is a way to reach a peer.
type Path string

const (
	// PathDirect: packets go from host to host.
	PathDirect Path = wire.PathDirect
	// PathRelayed: they pass a TURN server, of this agent or of the peer.
	PathRelayed Path = wire.PathRelayed
)

// Stats returns the numbers of the links to the peers. They come from the sidecar,
// which has them anyway: to ask ten times a second is cheap, and no peer notices.
//
// Errors wrap ErrSidecarLost, errors.ErrUnsupported if the sidecar is one of a version
// that cannot tell, the reason for which the mesh ended, or the cause of ctx.
func (m *Mesh) Stats(ctx context.Context) (Stats, error) {
	if m.ctx.Err() != nil {
		return Stats{}, m.closedError()
	}
	c := m.ipc()
	switch {
	case c == nil:
		return Stats{}, ErrSidecarLost
	case !c.has(wire.FeatureStats):
		return Stats{}, fmt.Errorf("stats: %w by the sidecar", errors.ErrUnsupported)
	}
	told, err := c.stats.ask(ctx, c)
	if err != nil {
		return Stats{}, err
	}
	return m.statsOf(told), nil
}

// statsOf returns what the sidecar has told of the peers that are live.
func (m *Mesh) statsOf(told wire.Stats) (st Stats) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range told.Peers {
		p := m.peers[t.PeerID]
		if p == nil || !p.live {
			continue
		}
		s := PeerStats{Peer: p.public(), Path: Path(t.Path), RTT: time.Duration(t.RoundTrip) * time.Microsecond}
		s.Local, _ = netip.ParseAddrPort(t.Local) // zero if it is none
		s.Remote, _ = netip.ParseAddrPort(t.Remote)
		st.Peers = append(st.Peers, s)
	}
	return st
}

// statsQueue are the calls of Stats that wait for the sidecar, which responds in order.
type statsQueue struct {
	mu      sync.Mutex
	waiting []chan wire.Stats // each buffered 1
}

func (q *statsQueue) ask(ctx context.Context, c *ipc) (wire.Stats, error) {
	response := make(chan wire.Stats, 1)
	q.mu.Lock()
	q.waiting = append(q.waiting, response)
	q.mu.Unlock()
	// In process the response comes before this returns.
	if err := c.writeNow(wire.AppendStatsCommand); err != nil {
		return wire.Stats{}, c.gone()
	}
	select {
	case st := <-response:
		return st, nil
	case <-c.ended:
		return wire.Stats{}, c.gone()
	case <-ctx.Done():
		return wire.Stats{}, context.Cause(ctx)
	}
}

// settle passes a response to the call that has waited longest.
func (q *statsQueue) settle(payload []byte) error {
	st, err := wire.DecodeStats(payload)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) > 0 {
		q.waiting[0] <- st
		q.waiting = q.waiting[1:]
	}
	return nil
}
