package sidecar

import (
	"cmp"
	"slices"
	"sync"
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

// A counted stream gives its place back when it is closed or reset, and its bytes count.
type counted struct {
	Stream
	peer *peer
	once sync.Once
	done func()
}

func (s *Sidecar) counted(p *peer, st Stream) *counted {
	return &counted{Stream: st, peer: p, done: func() { s.streams.leave(p.ID()) }}
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Stream.Read(b)
	c.peer.in.bytes.Add(int64(n))
	return n, err
}

func (c *counted) Write(b []byte) (int, error) {
	c.peer.out.bytes.Add(int64(len(b))) // before the peer can answer; of a stream that was reset, what was not sent as well
	return c.Stream.Write(b)
}

func (c *counted) Close() error {
	defer c.once.Do(c.done)
	return c.Stream.Close()
}

func (c *counted) Reset(code uint32) {
	defer c.once.Do(c.done)
	c.Stream.Reset(code)
}
