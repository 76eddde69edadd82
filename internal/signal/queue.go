package signal

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

const (
	// senderShare is the part of a Queue's bound, 1/senderShare, that one sender may fill.
	senderShare = 16
	// queueShare is the part of what is free in a Pool, 1/queueShare, up to which one Queue may fill either of its
	// accounts: the more is queued, the less may be added, so that a hundred full queues leave a fifth for others.
	queueShare = 64
	// entryCost is charged for each entry besides its bytes: the entry itself, and the account of its sender
	// with an id of 128 bytes.
	entryCost = 320
)

// ErrPoolFull means that a Pool has no room for a message that is being read.
var ErrPoolFull = errors.New("no memory for a message of this length now")

// Pool bounds the memory of several Queues, or of messages that are being read, together. Its methods may be called
// concurrently.
type Pool struct {
	max  int64
	used atomic.Int64 // bytes
}

// NewPool returns a pool of max bytes.
func NewPool(max int) *Pool { return &Pool{max: int64(max)} }

// take charges n bytes, and reports whether they were free. A nil Pool has no bound.
func (p *Pool) take(n int) bool {
	if p == nil {
		return true
	}
	if p.used.Add(int64(n)) > p.max {
		p.release(n)
		return false
	}
	return true
}

func (p *Pool) release(n int) {
	if p != nil {
		p.used.Add(int64(-n))
	}
}

// limit returns what is left of a queue's own bound at the present level of p.
func (p *Pool) limit(max int) int {
	if p == nil {
		return max
	}
	return min(max, int(p.max-p.used.Load())/queueShare)
}

// ReadAll is [io.ReadAll], and charges p, until it returns, for what its buffer takes beyond the first free bytes. If
// they are not there the error is [ErrPoolFull], and the rest of r is not read.
func (p *Pool) ReadAll(r io.Reader, free int) ([]byte, error) {
	b := make([]byte, 0, 512)
	charged := 0
	defer func() { p.release(charged) }()
	for {
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return b, err
		}
		if len(b) == cap(b) {
			size := 2 * cap(b)
			more := max(0, size-free) - charged
			if !p.take(more) {
				return b, ErrPoolFull
			}
			charged += more
			b = append(make([]byte, 0, size), b...)
		}
	}
}

// Queue is a first-in-first-out queue of messages between any number of producers and one consumer, bounded in
// the memory that they cost. Its methods do not block. What its owner pushes and what is pushed for senders are
// bounded separately, and each sender by a share, so that no sender can crowd out the others.
type Queue struct {
	max   int
	pool  *Pool // nil if this queue is the only one
	ready chan struct{}

	mu          sync.Mutex
	closed      bool
	first, last *entry         // nil if empty
	popped      *entry         // what Pop has returned last, still charged
	own         int            // bytes of Push
	relayed     int            // bytes of PushFrom
	senders     map[string]int // bytes of PushFrom by sender; without zeros
}

// entry is one message. A list of them, rather than a slice, holds no memory for what is gone.
type entry struct {
	b      []byte
	own    bool
	sender string
	next   *entry
}

// cost returns what e costs in memory, in bytes, rounded up: the allocator rounds a size up by a quarter at most.
func (e *entry) cost() int { return cap(e.b) + cap(e.b)/4 + entryCost }

// NewQueue returns a queue that holds at most max bytes of Push, and as many of PushFrom. With a pool it also holds
// less when others hold much.
func NewQueue(max int, pool *Pool) *Queue {
	return &Queue{max: max, pool: pool, senders: map[string]int{}, ready: make(chan struct{}, 1)}
}

// Push adds b, which the queue keeps, and reports whether there was room. When nothing of Push is queued,
// there is room for one item of any size: otherwise an item over the limit would never get in.
func (q *Queue) Push(b []byte) bool {
	e := newEntry(b)
	e.own = true
	q.mu.Lock()
	defer q.mu.Unlock()
	if !fits(q.own, e.cost(), q.pool.limit(q.max)) || !q.addLocked(e) {
		return false
	}
	q.own += e.cost()
	return true
}

// PushFrom is Push for a sender, within that sender's share: a sixteenth of the bound.
func (q *Queue) PushFrom(sender string, b []byte) bool {
	e := newEntry(b)
	e.sender = sender
	q.mu.Lock()
	defer q.mu.Unlock()
	limit := q.pool.limit(q.max)
	if !fits(q.relayed, e.cost(), limit) || !fits(q.senders[sender], e.cost(), limit/senderShare) || !q.addLocked(e) {
		return false
	}
	q.relayed += e.cost()
	q.senders[sender] += e.cost()
	return true
}

// newEntry returns an entry with b, or with a copy if b has much more memory than it needs, as what io.ReadAll returns.
func newEntry(b []byte) *entry {
	if cap(b) > len(b)+len(b)/4 {
		b = bytes.Clone(b)
	}
	return &entry{b: b}
}

func fits(used, more, limit int) bool { return used == 0 || used+more <= limit }

// addLocked adds e, unless the pool has no room for it or the queue is closed.
func (q *Queue) addLocked(e *entry) bool {
	if q.closed || !q.pool.take(e.cost()) {
		return false
	}
	if q.last == nil {
		q.first = e
	} else {
		q.last.next = e
	}
	q.last = e
	select {
	case q.ready <- struct{}{}:
	default:
	}
	return true
}

// Pop removes and returns the oldest item, if there is one. The item stays charged until the next Pop: its consumer
// is still writing it.
func (q *Queue) Pop() ([]byte, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.popLocked()
	if q.popped == nil {
		return nil, false
	}
	return q.popped.b, true
}

// popLocked makes the oldest item the popped one, in place of the last, which is not charged any more.
func (q *Queue) popLocked() {
	if q.popped != nil {
		q.releaseLocked(q.popped)
	}
	q.popped = q.first
	if q.first != nil {
		q.first = q.first.next
		q.popped.next = nil
	}
	if q.first == nil {
		q.last = nil
	}
}

func (q *Queue) releaseLocked(e *entry) {
	q.pool.release(e.cost())
	if e.own {
		q.own -= e.cost()
		return
	}
	q.relayed -= e.cost()
	if q.senders[e.sender] -= e.cost(); q.senders[e.sender] == 0 {
		delete(q.senders, e.sender)
	}
}

// Close drops what is queued, and from then on what is pushed. The queue's part of the pool is free again.
func (q *Queue) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for q.first != nil || q.popped != nil {
		q.popLocked()
	}
}

// Ready returns a channel that holds a value after a Push or PushFrom. Pop until the queue is empty before
// receiving again.
func (q *Queue) Ready() <-chan struct{} { return q.ready }
