package mesh

import (
	"sync"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// What a session tells the mesh. All of it is called by whoever takes the link's
// lines (link.serve), one at a time, and none of it waits.

// receive takes a message from a peer: the response that a call waits for, or
// work for a handler. Responses are matched here, on the read path, so that a
// handler may itself wait for one.
func (m *Mesh) receive(from []byte, typ string, w *wire.Message) {
	m.mu.Lock()
	p := m.peers[string(from)]
	m.mu.Unlock()
	if p == nil {
		m.report(&PeerError{Op: "message", Peer: string(from), RequestID: string(w.RequestID), Err: ErrUnknownPeer})
		return
	}
	msg := m.received(p.inbox.peer, typ, w)
	if msg.RequestID != "" && canRespond(msg.Type) && m.calls.reply(msg) {
		return
	}
	p.inbox.message(msg)
}

// begin makes a session the one to write to, once it is known what its sidecar
// can do. Peers may have been announced before.
func (m *Mesh) begin(s *session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.current = s
	for _, p := range m.peers {
		p.change()
	}
}

// peerConnected begins the link to a peer. A peer that is live already was
// announced by the list and by its own event: both tell of the same link.
func (m *Mesh) peerConnected(id string) {
	m.mu.Lock()
	p := m.peers[id]
	if p == nil {
		p = newPeer(m, id)
		m.peers[id] = p
	}
	if p.live {
		m.mu.Unlock()
		return
	}
	p.live, p.stop = true, stopNothing
	p.change()
	waiters := m.waiters[id]
	delete(m.waiters, id)
	m.mu.Unlock()
	p.inbox.connected()
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
	p.live, p.stop = false, stopNothing
	p.change()
	m.mu.Unlock()
	m.calls.failPeer(id, reason)
	p.inbox.disconnected(reason)
}

// forgetPeer drops what is known of a peer that is gone, once its last message
// was handled: peer ids may come without end.
func (m *Mesh) forgetPeer(b *inbox) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.peers[b.peer]; p != nil && p.inbox == b && !p.live && b.idle() {
		delete(m.peers, b.peer)
	}
}

func (m *Mesh) setStop(id string, s stop) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.peers[id]; p != nil && p.live && p.stop != s {
		p.stop = s
		p.change()
	}
}

// change wakes whoever waits for the peer; called with Mesh.mu held.
func (p *peer) change() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (m *Mesh) cancelled(from, id string) {
	m.mu.Lock()
	p := m.peers[from]
	m.mu.Unlock()
	if p != nil {
		p.inbox.cancel(id)
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

func (m *Mesh) setSignaling(st SignalingStatus) {
	m.mu.Lock()
	if st.PeerID == "" {
		st.PeerID = m.signaling.PeerID
	}
	m.signaling = st
	close(m.signaled)
	m.signaled = make(chan struct{})
	for _, w := range m.waiters[st.PeerID] { // from before we knew who we are
		w.end(errOneself)
	}
	m.mu.Unlock()
	if f := m.cfg.OnSignaling; f != nil {
		m.notices.add(func() { f(st) })
	}
}

// report tells of a failure that no caller waits for.
func (m *Mesh) report(err error) {
	m.noise.Warn().Err(err).Int64("count", m.reports.Add(1)).Msg("mesh")
	if f := m.cfg.OnError; f != nil {
		m.notices.add(func() { f(err) })
	}
}

// maxNotices bounds what waits for a callback that is slow.
const maxNotices = 1024

// notices calls the application's callbacks one at a time and in order, from
// goroutines that live only while there is something to tell.
type notices struct {
	m       *Mesh
	mu      sync.Mutex
	queue   []func()
	running bool
	lost    int
}

func (n *notices) add(f func()) {
	if lost := n.push(f); lost > 0 {
		n.m.noise.Error().Int("lost", lost).Msg("a callback is too slow: notice dropped")
	}
}

// push returns how many were lost if f is.
func (n *notices) push(f func()) (lost int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.queue) >= maxNotices {
		n.lost++
		return n.lost
	}
	n.queue = append(n.queue, f)
	if !n.running {
		n.running = true
		n.m.handlers.run(n.work)
	}
	return 0
}

func (n *notices) work() {
	empty := false
	defer func() {
		if !empty { // a callback has ended its goroutine
			n.m.handlers.run(n.work)
		}
	}()
	for {
		n.mu.Lock()
		if len(n.queue) == 0 {
			n.queue, n.running, empty = nil, false, true
			n.mu.Unlock()
			return
		}
		f := n.queue[0]
		n.queue = n.queue[1:]
		n.mu.Unlock()
		n.m.guard(f)
	}
}
