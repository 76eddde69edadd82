//go:build !js

package rtc

import "sync"

// mailbox queues work for the node's loop. Posting never blocks, because pion's callbacks must not.
// Its length is bounded by its sources: a few events for each connection and timer, and messages from
// signaling, which mail counts.
type mailbox struct {
	wake chan struct{}

	mu     sync.Mutex
	work   []func()
	closed bool
}

func newMailbox() *mailbox {
	return &mailbox{wake: make(chan struct{}, 1)}
}

// post queues f, or drops it after close.
func (m *mailbox) post(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	m.work = append(m.work, f)
	notify(m.wake)
}

// take removes and returns what is queued. It blocks until there is something.
func (m *mailbox) take() []func() {
	<-m.wake
	m.mu.Lock()
	defer m.mu.Unlock()
	work := m.work
	m.work = nil
	return work
}

func (m *mailbox) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.work = nil
}

// mail counts what messages from signaling cost while they are in the mailbox, so that no peer fills it.
type mail struct {
	mu   sync.Mutex
	all  int
	from map[string]int // by peer
}

// post queues the work on a peer's message with a payload of so many bytes. It returns false if too much of that peer,
// or of all, is queued.
func (m *mail) post(box *mailbox, peer string, payload int, work func()) bool {
	cost := mailCost + payload
	if !m.charge(peer, cost) {
		return false
	}
	box.post(func() {
		m.charge(peer, -cost)
		work()
	})
	return true
}

func (m *mail) charge(peer string, cost int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if cost > 0 && (m.all+cost > maxMail || m.from[peer]+cost > maxMailFrom) {
		return false
	}
	if m.from == nil {
		m.from = make(map[string]int)
	}
	m.all += cost
	if m.from[peer] += cost; m.from[peer] == 0 {
		delete(m.from, peer)
	}
	return true
}
