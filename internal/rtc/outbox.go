package rtc

import (
	"bytes"
	"sync"
	"sync/atomic"

	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// keepBusy and keepIdle are the largest buffers kept while lines keep coming, and while none wait.
	keepBusy = 4 << 20
	keepIdle = 64 << 10
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
}

func newOutbox(high, low int) *outbox {
	return &outbox{wake: make(chan struct{}, 1), high: high, low: low}
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
	o.commit(wire.AppendPeerMessage(o.lines, msg))
	return added
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
