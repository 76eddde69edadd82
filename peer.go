package mesh

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// A Peer is another agent on the mesh.
type Peer struct {
	// ID is its peer id, as its sidecar was authenticated to the signaling server.
	ID string
	// Key is the public key that the peer has proven, in base64; "" if it has shown
	// none: see Config.Identity.
	Key string
	// Since is when the link to it came up.
	Since time.Time
	// Card is what it says about itself; nil if it has said nothing. It must not be
	// changed.
	Card *Card
}

// A PeerEvent says that a peer came or went.
type PeerEvent struct {
	Peer
	Connected bool // false if the peer went
	// Err is why a peer went: it wraps ErrPeerGone, or ErrSidecarLost when this
	// agent's own sidecar ended. nil if Connected.
	Err error

	mesh *Mesh
}

// Mesh returns the mesh of the event, for callbacks that run before New has
// returned.
func (e PeerEvent) Mesh() *Mesh { return e.mesh }

// A peer is what the agent knows of another one; guarded by Mesh.mu.
type peer struct {
	id      string
	live    bool
	key     string
	since   time.Time // the link came up, if live
	card    *Card
	stop    wire.Stop
	changed chan struct{} // closed when live or stop changes
	inbox   *inbox
	// turns are one-slot semaphores, held by the goroutine that writes to the peer:
	// senders queue for their turn, and only the first one waits for the peer. Each
	// kind of message has one of its own, by the least Stop that holds it back.
	turns [wire.StopAll + 1]chan struct{}
}

func newPeer(m *Mesh, id string) *peer {
	p := &peer{id: id, changed: make(chan struct{}), inbox: newInbox(m, id)}
	for i := range p.turns {
		p.turns[i] = make(chan struct{}, 1)
	}
	return p
}

// heldBackBy returns the least Stop that holds back a message that Send, Broadcast or
// Request sends: requests go on while the messages that the peer handles in order wait.
func heldBackBy(msg *Message) wire.Stop {
	if wire.WantsResponse(msg.Type, msg.RequestID) {
		return wire.StopNewWork
	}
	return wire.StopOrdered
}

// changeLocked wakes the goroutines that wait for the peer.
func (p *peer) changeLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// Peers returns the peers whose links are live, sorted by id.
func (m *Mesh) Peers() []Peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	peers := make([]Peer, 0, len(m.peers))
	for _, p := range m.peers {
		if p.live {
			peers = append(peers, p.public())
		}
	}
	slices.SortFunc(peers, func(a, b Peer) int { return strings.Compare(a.ID, b.ID) })
	return peers
}

// public returns what the application may know.
func (p *peer) public() Peer { return Peer{ID: p.id, Key: p.key, Since: p.since, Card: p.card} }

// peerConnected begins the link to a peer with the key that it has proven, if any, and
// its card.
// A peer that is live already was announced by the list and by its own event: both
// are about the same link.
func (m *Mesh) peerConnected(id, key string, card *Card) {
	m.mu.Lock()
	p := m.peers[id]
	if p == nil {
		p = newPeer(m, id)
		p.inbox.quiet = len(m.peers) >= maxPeers
		m.peers[id] = p
	}
	if p.live {
		m.mu.Unlock()
		return
	}
	p.live, p.key, p.card, p.since, p.stop = true, key, card, time.Now(), wire.StopNothing
	delete(m.refused, id)
	p.changeLocked()
	event := PeerEvent{mesh: m, Peer: p.public(), Connected: true}
	waiters := m.waiters[id]
	delete(m.waiters, id)
	m.mu.Unlock()
	m.observe(m.cfg.Observer.LinkUp != nil, func(o *Observer) { o.LinkUp(event.Peer) })
	p.inbox.connected(event)
	for _, w := range waiters {
		w.end(nil)
	}
}

// peerDisconnected ends the link: what waits for the peer fails now, not at its
// timeout.
func (m *Mesh) peerDisconnected(id string, reason error) {
	m.mu.Lock()
	p := m.peers[id]
	if p == nil || !p.live {
		m.mu.Unlock()
		return
	}
	p.live, p.stop = false, wire.StopNothing
	p.changeLocked()
	event := PeerEvent{mesh: m, Peer: p.public(), Err: reason}
	m.mu.Unlock()
	m.calls.failPeer(id, reason)
	m.observe(m.cfg.Observer.LinkDown != nil, func(o *Observer) { o.LinkDown(event.Peer, reason) })
	p.inbox.disconnected(event)
}

// maxPeers is how many peers may be known, most of them gone and kept by callbacks
// that do not return, before OnPeer is not told of further ones. A sidecar has half as
// many links.
const maxPeers = 8192

// forgetPeer drops what is known of a peer that is gone, once its last message
// was handled: peer ids may come without end.
func (m *Mesh) forgetPeer(b *inbox) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.peers[b.peer]; p != nil && p.inbox == b && !p.live && b.idle() {
		delete(m.peers, b.peer)
	}
}

// setStop notes what is to be held back for a peer.
func (m *Mesh) setStop(id string, s wire.Stop) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.peers[id]; p != nil && p.live && p.stop != s {
		p.stop = s
		p.changeLocked()
	}
}

func (m *Mesh) peer(id string) *peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peers[id]
}

// A waiter waits for a peer's link, in Connect or WaitPeer.
type waiter struct {
	connect bool       // it also ends when the sidecar reports that connect failed
	done    chan error // buffered 1
}

// end gives the waiter its result, unless it has one: it may have failed before
// and be about to leave. It never blocks, since the goroutine that takes the
// link's lines calls it.
func (w *waiter) end(err error) {
	select {
	case w.done <- err:
	default:
	}
}

// connectTimeout is a little longer than the sidecar tries before it tells why
// there is no link, 30 s.
const connectTimeout = 35 * time.Second

// Connect asks for a link to a peer now, and blocks until it is live, under ctx or
// for 35 s if that has no deadline. It fails at once with
// ErrNotConnected if the signaling server does not know the peer, and with
// ErrSidecarLost if there is no sidecar. Agents on the mesh connect to each other
// by themselves; Connect makes sure of it, without waiting for the next attempt.
// Errors are a *PeerError.
func (m *Mesh) Connect(ctx context.Context, peer string) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, connectTimeout)
		defer cancel()
	}
	if err := m.waitLink(ctx, peer, true); err != nil {
		return &PeerError{Op: "connect", Peer: peer, Err: err}
	}
	return nil
}

// WaitPeer blocks until the link to a peer is live, however long that takes, or
// until ctx ends. Errors are a *PeerError.
func (m *Mesh) WaitPeer(ctx context.Context, peer string) error {
	if err := m.waitLink(ctx, peer, false); err != nil {
		return &PeerError{Op: "wait", Peer: peer, Err: err}
	}
	return nil
}

var errOneself = fmt.Errorf("%w: that is this agent itself", ErrInvalid)

// waitLink blocks until the link to a peer is live, after asking for it if connect
// is set.
func (m *Mesh) waitLink(ctx context.Context, id string, connect bool) error {
	w, c, err := m.addWaiter(id, connect)
	if w == nil {
		return err
	}
	defer m.removeWaiter(id, w)
	if connect {
		if err := c.write(ctx, func(b []byte) []byte { return wire.AppendConnect(b, id) }); err != nil {
			return err
		}
	}
	select {
	case err := <-w.done:
		return err
	case <-m.ctx.Done():
		return m.closedError()
	case <-ctx.Done():
		return m.withSignaling(m.withRefusal(id, context.Cause(ctx)))
	}
}

// maxRefused bounds the peers whose refusal is remembered.
const maxRefused = 256

// noteRefused remembers why the identity of a peer was refused, for WaitPeer.
func (m *Mesh) noteRefused(id string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.refused) >= maxRefused {
		clear(m.refused)
	}
	m.refused[id] = err
}

// withRefusal adds why the peer's identity was refused, if it was, to the error of
// waiting for it.
func (m *Mesh) withRefusal(id string, err error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if why := m.refused[id]; why != nil {
		return fmt.Errorf("%w; last attempt: %w", err, inner{why})
	}
	return err
}

// addWaiter returns a waiter for a peer's link, and the link to the sidecar. The
// waiter is nil if the link is live already, or with the error if it cannot be.
func (m *Mesh) addWaiter(id string, connect bool) (*waiter, *ipc, error) {
	if id == "" {
		return nil, nil, fmt.Errorf("%w: the peer id is empty", ErrInvalid)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.peers[id]
	switch {
	case m.ctx.Err() != nil:
		return nil, nil, m.closedError()
	case id == m.signaling.PeerID:
		return nil, nil, errOneself
	case p != nil && p.live:
		return nil, nil, nil
	case connect && m.current == nil:
		return nil, nil, ErrSidecarLost
	}
	w := &waiter{connect: connect, done: make(chan error, 1)}
	m.waiters[id] = append(m.waiters[id], w)
	return w, m.current, nil
}

func (m *Mesh) removeWaiter(id string, w *waiter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiters[id] = slices.DeleteFunc(m.waiters[id], func(x *waiter) bool { return x == w })
	if len(m.waiters[id]) == 0 {
		delete(m.waiters, id)
	}
}

// connectFailed ends the Connects that wait for a peer, and reports whether
// there were any.
func (m *Mesh) connectFailed(id string, err error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := false
	for _, w := range m.waiters[id] {
		if w.connect {
			found = true
			w.end(err)
		}
	}
	return found
}
