package signal

import "sync"

// senderShare is the part of a Queue's bound, 1/senderShare, that one sender may fill.
const senderShare = 16

// Queue is a first-in-first-out queue of messages, bounded in bytes, between any number of producers
// and one consumer. Its methods do not block. What its owner pushes and what is pushed for senders are
// bounded separately, and each sender by a share, so that no sender can crowd out the others.
type Queue struct {
	max   int
	ready chan struct{}

	mu      sync.Mutex
	items   []item
	own     int            // bytes of Push
	relayed int            // bytes of PushFrom
	senders map[string]int // bytes of PushFrom by sender; without zeros
}

type item struct {
	b      []byte
	own    bool
	sender string
}

// NewQueue returns a queue that holds at most max bytes of Push, and as many of PushFrom.
func NewQueue(max int) *Queue {
	return &Queue{max: max, senders: map[string]int{}, ready: make(chan struct{}, 1)}
}

// Push adds b, which the queue keeps, and reports whether there was room. When nothing of Push is queued,
// there is room for one item of any size: otherwise an item over the limit would never get in.
func (q *Queue) Push(b []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !fits(q.own, len(b), q.max) {
		return false
	}
	q.own += len(b)
	q.addLocked(item{b: b, own: true})
	return true
}

// PushFrom is Push for a sender, within that sender's share: a sixteenth of the bound.
func (q *Queue) PushFrom(sender string, b []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !fits(q.relayed, len(b), q.max) || !fits(q.senders[sender], len(b), q.max/senderShare) {
		return false
	}
	q.relayed += len(b)
	q.senders[sender] += len(b)
	q.addLocked(item{b: b, sender: sender})
	return true
}

func fits(used, more, limit int) bool { return used == 0 || used+more <= limit }

func (q *Queue) addLocked(i item) {
	q.items = append(q.items, i)
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// Pop removes and returns the oldest item, if there is one.
func (q *Queue) Pop() ([]byte, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return nil, false
	}
	i := q.items[0]
	q.items[0] = item{}
	q.items = q.items[1:]
	if len(q.items) == 0 {
		q.items = nil // lets go of what a burst has grown
	}
	q.releaseLocked(i)
	return i.b, true
}

func (q *Queue) releaseLocked(i item) {
	if i.own {
		q.own -= len(i.b)
		return
	}
	q.relayed -= len(i.b)
	if q.senders[i.sender] -= len(i.b); q.senders[i.sender] == 0 {
		delete(q.senders, i.sender)
	}
}

// Ready returns a channel that holds a value after a Push or PushFrom. Pop until the queue is empty before
// receiving again.
func (q *Queue) Ready() <-chan struct{} { return q.ready }
