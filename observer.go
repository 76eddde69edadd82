package mesh

import (
	"net/netip"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// An Observer is told of what happens to a mesh, for those who count or trace it by themselves; a nil function is not
// called. The functions are called where it happens, which may be in a goroutine that has called a method of the mesh, such as
// Send: they must return at once, take no lock that is held meanwhile, and call no method of the mesh that blocks.
// Calls about one peer come in order; those about different peers, and Dropped, may be concurrent.
type Observer struct {
	LinkUp func(Peer)
	// LinkDown says that a link has ended before the mesh, and why, as PeerEvent.Err has it.
	LinkDown func(peer Peer, err error)
	// PathChanged says that a link has moved to another path since LinkUp, or the last call: see PeerStats.
	PathChanged func(peer Peer, path Path, local, remote netip.AddrPort)
	// CardChanged says that a live peer has another card than with LinkUp, or the last call.
	CardChanged func(Peer)
	// Restarted says that a sidecar came up in place of one that was lost, and why that was.
	Restarted func(cause error)
	// Dropped says that a message of a peer was dropped: its type, and one of the reasons Drop... .
	Dropped func(peer, typ, reason string)
}

// observe calls a function of the application that observes.
func (m *Mesh) observe(some bool, call func(o *Observer)) {
	if some {
		m.guard(func() { call(&m.cfg.Observer) })
	}
}

// onPath handles that a link has moved to another path.
func (c *ipc) onPath(payload []byte) error {
	told, err := wire.DecodePath(payload)
	if err != nil || c.m.cfg.Observer.PathChanged == nil {
		return err
	}
	if p, live := c.m.livePeer(told.PeerID); live {
		s := peerStats(&told)
		c.m.observe(true, func(o *Observer) { o.PathChanged(p, s.Path, s.Local, s.Remote) })
	}
	return nil
}
