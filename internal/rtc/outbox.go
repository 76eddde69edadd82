package rtc

import (
	"bytes"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// keepBusy and keepIdle are the largest buffers kept while lines keep coming, and while none wait.
	keepBusy = 4 << 20
	keepIdle = 64 << 10
	// pace is how long after the last one a message counts as a lone one: about twice what the change to
	// another goroutine costs.
	pace = 50 * time.Microsecond
)

// pauseState is a control line that waits to be sent.
type pauseState uint8

const (
	pauseNone pauseState = iota
	pauseOn
	pauseOff
)

// addResult tells what became of a line.
type addResult uint8

const (
	added addResult = iota
	addedFull
	addedClosed
)

// outbox is the queue of lines to one peer: two byte buffers, one that Send appends to and one that the
// writer works through. So thousands of waiting messages are one piece of memory, which the writer cuts
// into slices of the best size.
type outbox struct {
	wake chan struct{} // there is something for the writer

	congested atomic.Bool // over the high mark, and since then not down to the low one; written under mu

	mu        sync.Mutex
	lines     []byte
	queued    int // bytes here and with the writer
	high, low int
	pause     pauseState
	closed    bool
	idle      bool      // the writer has no line in hand
	last      time.Time // when a message last found the outbox idle
	direct    func([]byte) bool
}

// newOutbox returns an outbox with marks. direct writes a message while the outbox is idle, or returns
// false.
func newOutbox(high, low int, direct func(line []byte) bool) *outbox {
	return &outbox{wake: make(chan struct{}, 1), high: high, low: low, direct: direct}
}

func (o *outbox) addHello(maxMessage int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.commit(wire.AppendPeerHello(o.lines, maxMessage))
}

func (o *outbox) addMessage(msg []byte, limit int) addResult {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r := o.admit(len(msg)+1, limit); r != added {
		return r
	}
	lines := wire.AppendPeerMessage(o.lines, msg)
	if o.mayWrite() && o.direct(lines) {
		o.lines = lines[:0]
		return added
	}
	o.commit(lines)
	return added
}

// mayWrite tells whether whoever adds a message is to write it, which spares the change to the writer's
// goroutine. When messages follow each other closely the writer does it, since it can put several into one
// slice. Called with mu held.
func (o *outbox) mayWrite() bool {
	if !o.idle || len(o.lines) > 0 || o.pause != pauseNone {
		return false
	}
	now := time.Now()
	since := now.Sub(o.last)
	o.last = now
	return since >= pace
}

func (o *outbox) addCancel(requestID string, limit int) addResult {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r := o.admit(len(requestID), limit); r != added {
		return r
	}
	o.commit(wire.AppendPeerCancel(o.lines, requestID))
	return added
}

func (o *outbox) admit(size, limit int) addResult {
	if o.closed {
		return addedClosed
	}
	if o.queued+size > limit {
		return addedFull
	}
	return added
}

func (o *outbox) commit(lines []byte) {
	o.account(len(lines) - len(o.lines))
	o.lines = lines
	notify(o.wake)
}

// setPause replaces a pause or resume that still waits, so that these need no queue.
func (o *outbox) setPause(s pauseState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pause = s
	notify(o.wake)
}

// take exchanges the writer's used-up buffer for the lines that wait.
func (o *outbox) take(used []byte) []byte {
	if cap(used) > keepBusy {
		used = nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := o.lines
	o.lines = used[:0]
	o.idle = len(lines) == 0 && o.pause == pauseNone
	return lines
}

// shrink gives up large buffers if nothing waits; it returns the writer's.
func (o *outbox) shrink(used []byte) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.lines) == 0 && cap(o.lines) > keepIdle {
		o.lines = nil
	}
	if cap(used) > keepIdle {
		return nil
	}
	return used
}

// takePause returns the control line to send next, nil if there is none.
func (o *outbox) takePause() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.pause
	o.pause = pauseNone
	switch s {
	case pauseOn:
		return wire.AppendPeerPause(nil)
	case pauseOff:
		return wire.AppendPeerResume(nil)
	}
	return nil
}

func (o *outbox) pausePending() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pause != pauseNone
}

// sent takes note of n bytes that left the queue.
func (o *outbox) sent(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.account(-n)
	}
}

// account changes how much is queued. Called with mu held.
func (o *outbox) account(n int) {
	o.queued += n
	switch {
	case o.queued > o.high:
		o.congested.Store(true)
	case o.queued <= o.low:
		o.congested.Store(false)
	}
}

func (o *outbox) size() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.queued
}

// close drops what is queued, and returns how much that was.
func (o *outbox) close() (lost int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	lost, o.queued, o.lines, o.closed = o.queued, 0, nil, true
	return lost
}

// cut returns how many bytes of lines go into the next data channel message: as many as fit, but only
// up to the end of a line if something is to be put between two lines.
func cut(lines []byte, toLineEnd bool) int {
	n := min(len(lines), wire.SliceSize)
	if toLineEnd {
		if end := bytes.IndexByte(lines[:n], '\n'); end >= 0 {
			return end + 1
		}
	}
	return n
}
