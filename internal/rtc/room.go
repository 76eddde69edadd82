//go:build !js

package rtc

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// RoomScheme is that of the URL of a room, in place of that of a signaling server.
const RoomScheme = "memory:"

// A Room links agents in memory, for their tests: no socket, no signaling, and the peer link that there is over WebRTC, whose
// lines, lanes, pauses, streams and limits are the same. Everything in it runs on the clock of who made it, in a bubble of
// testing/synctest also.
type Room struct {
	url string

	mu      sync.Mutex
	members map[string]*Member
	paths   map[[2]string]*memPath
	delay   time.Duration

	later alarms
}

var (
	roomsMu sync.Mutex
	rooms   = make(map[string]*Room)
)

// NewRoom returns an empty room. Close it.
func NewRoom() *Room {
	r := &Room{
		url: RoomScheme + randomID(), members: make(map[string]*Member), paths: make(map[[2]string]*memPath),
		later: alarms{done: make(chan struct{})},
	}
	roomsMu.Lock()
	defer roomsMu.Unlock()
	rooms[r.url] = r
	return r
}

// RoomAt returns the room with a URL, nil if there is none.
func RoomAt(url string) *Room {
	roomsMu.Lock()
	defer roomsMu.Unlock()
	return rooms[url]
}

// URL is what agents have in place of a signaling server's.
func (r *Room) URL() string { return r.url }

// Close has nobody join any more, and no link made again. Who is there may stay.
func (r *Room) Close() {
	roomsMu.Lock()
	delete(rooms, r.url)
	roomsMu.Unlock()
	r.later.close()
}

// A Member is one agent's end of its links in a room.
type Member struct {
	n    *Node // without a network
	room *Room
	id   string
	left chan struct{} // closed when it has left
	once sync.Once
}

// NewMember returns one that has not joined yet.
func (r *Room) NewMember(cfg Config, ev Events) *Member {
	cfg = cfg.withDefaults()
	n := &Node{
		cfg: cfg, log: cfg.Log, outside: logs.NewOutside(cfg.Log, logs.AgentBurst), ev: ev,
		lines: newLineMemory(&cfg), closed: make(chan struct{}), peers: make(map[*Peer]struct{}),
	}
	return &Member{n: n, room: r, left: make(chan struct{})}
}

// Join enters the room under an id, and links with all who are there; between the two it calls joined. It returns the member that had
// the id, whose place it takes.
func (m *Member) Join(id string, joined func()) (before *Member) {
	r := m.room
	r.mu.Lock()
	m.id = id
	before = r.members[id]
	r.members[id] = m
	others := r.othersLocked(id) // at once, so that of two who join the second one alone makes the link
	r.mu.Unlock()
	if before != nil {
		before.leave(ErrPeerClosed)
	}
	joined()
	for _, other := range others {
		r.link(m, other)
	}
	return before
}

// Here reports whether a peer is in the room.
func (m *Member) Here(id string) bool {
	m.room.mu.Lock()
	defer m.room.mu.Unlock()
	return m.room.members[id] != nil
}

// Close flushes until ctx ends, leaves, and returns when all goroutines have ended.
func (m *Member) Close(ctx context.Context) error {
	n := m.n
	n.closeOnce.Do(func() {
		defer close(n.closed)
		n.closeErr = n.Flush(ctx)
		m.leave(ErrClosed)
		n.lines.close()
		n.wg.Wait()
	})
	<-n.closed
	return n.closeErr
}

// SetCard is that of a Node.
func (m *Member) SetCard(card []byte) { m.n.SetCard(card) }

// Flush is that of a Node.
func (m *Member) Flush(ctx context.Context) error { return m.n.Flush(ctx) }

// Unsent is that of a Node.
func (m *Member) Unsent(ctx context.Context) map[string][wire.Lanes]int { return m.n.Unsent(ctx) }

// FlushStreams is that of a Node.
func (m *Member) FlushStreams(ctx context.Context) []string { return m.n.FlushStreams(ctx) }

// Left is closed when the member is in the room no more.
func (m *Member) Left() <-chan struct{} { return m.left }

// leave ends all links, at this end for a reason.
func (m *Member) leave(reason error) {
	m.once.Do(func() { close(m.left) })
	r := m.room
	r.mu.Lock()
	if r.members[m.id] == m {
		delete(r.members, m.id)
	}
	r.mu.Unlock()
	for _, p := range m.livePeers() {
		p.end(reason)
		p.down(reason)
	}
}

func (m *Member) livePeers() (peers []*Peer) {
	m.n.peersMu.Lock()
	defer m.n.peersMu.Unlock()
	for p := range m.n.peers {
		peers = append(peers, p)
	}
	return peers
}

func (r *Room) othersLocked(id string) (members []*Member) {
	for other, m := range r.members {
		if other != id {
			members = append(members, m)
		}
	}
	slices.SortFunc(members, func(a, b *Member) int { return strings.Compare(a.id, b.id) })
	return members
}

// link makes the link between two members, unless there is one, nothing passes, or one has left meanwhile and may be ending.
func (r *Room) link(a, b *Member) {
	path := r.path(a.id, b.id)
	r.mu.Lock()
	here := r.hereLocked(a, b)
	r.mu.Unlock()
	if here {
		path.replace(a, b)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &memLink{path: path, of: [2]*Member{a, b}}
	if !r.hereLocked(a, b) || !path.add(l) {
		return
	}
	l.dcs[0], l.dcs[1] = newMemChannels(path)
	session := randomID()
	l.ends[0] = a.newPeer(l, 0, b.id, session)
	l.ends[1] = b.newPeer(l, 1, a.id, session)
	for i, m := range []*Member{a, b} {
		m.n.start(l.ends[i])
	}
}

func (r *Room) hereLocked(a, b *Member) bool { return r.members[a.id] == a && r.members[b.id] == b }

// newPeer makes one end of a link; the first is that which would have made the offer.
func (m *Member) newPeer(l *memLink, end int, other, session string) *Peer {
	binding := identity.Link{Offerer: end == 0, Own: m.id, Other: other, OwnSession: session, OtherSession: session}
	p := newPeer(binding, description{stream: true, drain: true, streams: true}, l.dcs[end], int(wire.SliceSize), func() time.Duration { return 0 }, &m.n.cfg, m.n.ev)
	p.useLineMemory(m.n.lines)
	p.stats = func() wire.PeerStats {
		return wire.PeerStats{PeerID: other, Path: wire.PathDirect, Queued: p.Queued(), Outages: l.path.survived()}
	}
	p.streams.make = l.makeStreams
	p.up = func() { m.n.wg.Go(p.acceptStreams) }
	p.down = func(err error) { l.end(p, err) }
	return p
}

// SetDelay has everything take so long from one end to the other.
func (r *Room) SetDelay(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delay = d
}

// Cut cuts the path between two members. Their link lasts for the shorter of their recovery timeouts.
func (r *Room) Cut(a, b string) {
	r.mu.Lock()
	limit := defaultRecoveryTimeout
	for _, id := range []string{a, b} {
		if m := r.members[id]; m != nil {
			limit = min(limit, m.n.cfg.RecoveryTimeout)
		}
	}
	r.mu.Unlock()
	r.path(a, b).interrupt(limit)
}

// Heal ends a Cut. What was sent meanwhile arrives, unless the link was given up: then there is a new one.
func (r *Room) Heal(a, b string) {
	r.path(a, b).heal()
	r.mu.Lock()
	first, second := r.members[a], r.members[b]
	r.mu.Unlock()
	if first != nil && second != nil {
		r.link(first, second)
	}
}

// Kill takes a member away as SIGKILL takes its process: it says nothing, and its peers notice after a while.
func (r *Room) Kill(id string) {
	r.mu.Lock()
	m := r.members[id]
	delete(r.members, id)
	r.mu.Unlock()
	if m == nil {
		return
	}
	for _, p := range m.livePeers() {
		path := r.path(id, p.ID())
		for _, l := range path.all() {
			l.kill(p)
		}
	}
	m.leave(ErrClosed)
}

// Linkable reports whether two members that are in the room can reach each other now.
func (r *Room) Linkable(a, b string) bool {
	r.mu.Lock()
	here := r.members[a] != nil && r.members[b] != nil
	r.mu.Unlock()
	return here && !r.path(a, b).isCut()
}
