package signal

import "sync"

// Queue is a first-in-first-out queue of messages, bounded in bytes, between any number of producers
// and one consumer. Nothing in it blocks.
type Queue struct {
	mu    sync.Mutex
	items [][]byte
	bytes int
	max   int
	ready chan struct{}
}

// NewQueue returns a queue of at most max bytes.
func NewQueue(max int) *Queue {
	return &Queue{max: max, ready: make(chan struct{}, 1)}
}

// Push adds b, which the queue keeps, and reports whether there was room. An empty queue has room for
// one item of any size, so that an item over the limit cannot be stuck outside for ever.
func (q *Queue) Push(b []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) > 0 && q.bytes+len(b) > q.max {
		return false
	}
	q.items = append(q.items, b)
	q.bytes += len(b)
	select {
	case q.ready <- struct{}{}:
	default:
	}
	return true
}

// Pop takes the oldest item.
func (q *Queue) Pop() ([]byte, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return nil, false
	}
	b := q.items[0]
	q.items[0] = nil
	q.items = q.items[1:]
	if len(q.items) == 0 {
		q.items = nil // lets go of what a burst has grown
	}
	q.bytes -= len(b)
	return b, true
}

// Ready holds a value after a Push; Pop until there is nothing left, then wait for the next.
func (q *Queue) Ready() <-chan struct{} { return q.ready }
