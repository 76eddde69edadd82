//go:build !js

package rtc

import (
	"context"
	"fmt"
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

// deadAfter is how long it takes to notice that a peer's process has been killed, as over WebRTC.
const deadAfter = 5 * time.Second

// relinkAfter is how long it takes to make a link in place of one that has ended.
const relinkAfter = 50 * time.Millisecond

// A Room links agents in memory, for their tests: no socket, no signaling, and the peer link that there is over WebRTC, whose
// lines, lanes, pauses, streams and limits are the same. Everything in it runs on the clock of who made it, in a bubble of
// testing/synctest also.
type Room struct {
	url string

	mu      sync.Mutex
	members map[string]*Member
	paths   map[[2]string]*memPath
	delay   time.Duration
}

var (
	roomsMu sync.Mutex
	rooms   = make(map[string]*Room)
)

// NewRoom returns an empty room. Close it.
func NewRoom() *Room {
	r := &Room{url: RoomScheme + randomID(), members: make(map[string]*Member), paths: make(map[[2]string]*memPath)}
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

// Close has nobody join any more. Who is there may stay.
func (r *Room) Close() {
	roomsMu.Lock()
	defer roomsMu.Unlock()
	delete(rooms, r.url)
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

// link makes the link between two members, unless one has left meanwhile and may be ending.
func (r *Room) link(a, b *Member) {
	path := r.path(a.id, b.id)
	path.replace(a, b)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.members[a.id] != a || r.members[b.id] != b || len(path.all()) > 0 {
		return
	}
	l := &memLink{path: path, of: [2]*Member{a, b}}
	l.dcs[0], l.dcs[1] = newMemChannels(path)
	path.add(l)
	session := randomID()
	l.ends[0] = a.newPeer(l, 0, b.id, session)
	l.ends[1] = b.newPeer(l, 1, a.id, session)
	for i, m := range []*Member{a, b} {
		m.n.start(l.ends[i])
	}
}

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

// A memLink is a link between two members.
type memLink struct {
	path *memPath
	of   [2]*Member
	ends [2]*Peer
	dcs  [2]*memChannel

	once  sync.Once // for streams
	mu    sync.Mutex
	more  [2]*memChannel // for streams
	ended bool
	dead  *Peer // that end is of a process that was killed: the other is told nothing
}

// makeStreams makes the channel for streams.
func (l *memLink) makeStreams() {
	l.once.Do(func() {
		a, b := newMemChannels(l.path)
		l.mu.Lock()
		ended := l.ended
		l.more[0], l.more[1] = a, b
		l.mu.Unlock()
		if ended {
			return
		}
		_ = l.ends[0].startStreams(a, true) // an error is one of our own configuration
		_ = l.ends[1].startStreams(b, false)
	})
}

// end ends the link: at p's end for a reason, at the other as if p had closed it.
func (l *memLink) end(p *Peer, reason error) {
	l.mu.Lock()
	again := l.ended
	l.ended = true
	dead := l.dead == p
	l.mu.Unlock()
	p.end(reason)
	for i, c := range l.channels() {
		if !dead || l.ends[i%2] == p {
			c.close()
		}
	}
	if !dead {
		l.path.remove(l)
	}
	if !again && !dead {
		time.AfterFunc(relinkAfter, l.relink)
	}
}

// channels returns those of both ends, by turns.
func (l *memLink) channels() []*memChannel {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more[0] == nil {
		return l.dcs[:]
	}
	return append(l.dcs[:len(l.dcs):len(l.dcs)], l.more[:]...)
}

// relink makes a new link between the members, if both are still there and nothing else has.
func (l *memLink) relink() {
	r := l.path.room
	r.mu.Lock()
	here := r.members[l.of[0].id] == l.of[0] && r.members[l.of[1].id] == l.of[1]
	r.mu.Unlock()
	if here && len(l.path.all()) == 0 {
		r.link(l.of[0], l.of[1])
	}
}

// silence ends both ends of the link for a reason: nothing came over the path for too long.
func (l *memLink) silence(reason error) {
	l.ends[0].end(reason)
	l.end(l.ends[1], reason)
}

// A memPath is the way between two members, over which their links go.
type memPath struct {
	room *Room

	mu      sync.Mutex
	cut     bool
	links   map[*memLink]struct{}
	last    *memLink
	timer   *time.Timer // until links over a path that is cut are given up
	outages int         // that links have survived
}

func pathKey(a, b string) [2]string { return [2]string{min(a, b), max(a, b)} }

func (r *Room) path(a, b string) *memPath {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.paths[pathKey(a, b)]
	if p == nil {
		p = &memPath{room: r, links: make(map[*memLink]struct{})}
		r.paths[pathKey(a, b)] = p
	}
	return p
}

func (p *memPath) add(l *memLink) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links[l] = struct{}{}
	p.last = l
}

// replace ends the link of an earlier member, and returns when its ends have been reported: what is told of one peer is in order.
func (p *memPath) replace(a, b *Member) {
	p.mu.Lock()
	last := p.last
	p.mu.Unlock()
	if last != nil && !(last.has(a) && last.has(b)) {
		last.silence(ErrRestarted)
	}
}

func (l *memLink) has(m *Member) bool { return l.of[0] == m || l.of[1] == m }

func (p *memPath) remove(l *memLink) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

func (p *memPath) isCut() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cut
}

func (p *memPath) survived() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.outages
}

func (p *memPath) delayed() time.Duration {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	return p.room.delay
}

// giveUp ends the links over the path.
func (p *memPath) giveUp(reason error) {
	for _, l := range p.all() {
		l.silence(reason)
	}
}

func (p *memPath) all() (links []*memLink) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		links = append(links, l)
	}
	return links
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
	p := r.path(a, b)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		return
	}
	p.cut = true
	p.timer = time.AfterFunc(limit, func() { p.giveUp(fmt.Errorf("%w: interrupted for %s", ErrUnreachable, limit)) })
}

// Heal ends a Cut. What was sent meanwhile arrives, unless the link was given up: then there is a new one.
func (r *Room) Heal(a, b string) {
	p := r.path(a, b)
	p.mu.Lock()
	was := p.cut
	p.cut = false
	stopTimer(p.timer)
	if was && len(p.links) > 0 {
		p.outages++
	}
	p.mu.Unlock()
	for _, l := range p.all() {
		for _, c := range l.channels() {
			notify(c.wake)
		}
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

// kill ends one end of the link at once, and the other when its peer's silence has lasted.
func (l *memLink) kill(dead *Peer) {
	far := 0
	if l.ends[0] == dead {
		far = 1
	}
	l.mu.Lock()
	l.dead = dead
	l.mu.Unlock()
	time.AfterFunc(deadAfter, func() { l.end(l.ends[far], ErrDied) })
}

// Linkable reports whether two members that are in the room can reach each other now.
func (r *Room) Linkable(a, b string) bool {
	r.mu.Lock()
	here := r.members[a] != nil && r.members[b] != nil
	r.mu.Unlock()
	return here && !r.path(a, b).isCut()
}
