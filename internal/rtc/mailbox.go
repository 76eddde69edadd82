//go:build !js

package rtc

import "sync"

// mailbox queues work for the node's loop. Posting never blocks, because pion's callbacks must not.
// Its length is bounded by its sources: a few events for each connection and timer, and messages from
// signaling, which are refused when it is long.
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

// postUpTo is like post but returns false if n or more functions are queued.
func (m *mailbox) postUpTo(n int, f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || len(m.work) >= n {
		return m.closed
	}
	m.work = append(m.work, f)
	notify(m.wake)
	return true
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
