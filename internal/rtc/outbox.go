//go:build !js

package rtc

import (
	"bytes"
	"sync"
	"sync/atomic"

	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// keepBusy and keepIdle are the largest buffers kept while lines keep coming, and while none are queued.
	keepBusy = 2 << 20
	keepIdle = 64 << 10
	// sealSize is where a buffer takes no more lines and the next one begins. What is queued is thus in pieces, which
	// are freed as they are sent, instead of in one that would be copied whenever it grows.
	sealSize = 1 << 20
	// cancelRoom is how many bytes of cancels may be queued. They have room of their own: they relieve a congested
	// peer, and take none from messages.
	cancelRoom = 256 << 10
)

// pauseState is a pause or resume that is to be sent.
type pauseState uint8

const (
	pauseNone pauseState = iota
	pauseOn
	pauseOff
)

// addResult is what became of a line.
type addResult uint8

const (
	added addResult = iota
	addedFull
	addedClosed
)

// outbox is the queue of lines to one peer: byte buffers, one that Send appends to, those that are full, and one that
// the writer works through. Thousands of queued messages are thus a few pieces of memory, which the writer cuts
// into slices of the best size.
type outbox struct {
	wake chan struct{} // there is something for the writer

	// direct writes lines while the outbox is idle, or returns false. It is called with mu held, so that no
	// other line overtakes them.
	direct    func([]byte) bool
	high, low int

	congested atomic.Bool // over the high mark, and since then not down to the low one; written under mu

	mu      sync.Mutex
	full    [][]byte // lines before those in lines
	lines   []byte
	queued  int // bytes here and with the writer
	cancels int // bytes of cancels that were added since the queue was empty
	pause   pauseState
	drain   int // number of the drain to send behind the lines; 0 if there is none
	drained int // number of the drained to send; -1 if there is none
	member  *wire.Membership
	closed  bool
	idle    bool // the writer has no line in hand
	pace    wire.Pace
}

func newOutbox(high, low int, direct func(lines []byte) bool) *outbox {
	return &outbox{wake: make(chan struct{}, 1), high: high, low: low, direct: direct, drained: -1}
}

func (o *outbox) addHello(h wire.Greeting) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.commitLocked(wire.AppendPeerHello(o.lines, h))
}

func (o *outbox) addMessage(msg []byte, limit int) addResult {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r := o.admitLocked(len(msg)+1, limit); r != added {
		return r
	}
	lines := wire.AppendPeerMessage(o.lines, msg)
	if o.emptyLocked() && o.pace.Lone() && o.direct(lines) {
		o.lines = lines[:0]
		return added
	}
	o.commitLocked(lines)
	return added
}

// addCancel adds a cancel, unless there are too many.
func (o *outbox) addCancel(requestID string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := wire.AppendPeerCancel(o.lines, requestID)
	n := len(lines) - len(o.lines)
	if o.closed || o.cancels+n > cancelRoom {
		return
	}
	o.cancels += n
	o.commitLocked(lines)
}

// emptyLocked reports whether a new line would be the next one written.
func (o *outbox) emptyLocked() bool {
	return o.idle && len(o.lines) == 0 && len(o.full) == 0 && !o.controlPendingLocked()
}

func (o *outbox) admitLocked(size, limit int) addResult {
	if o.closed {
		return addedClosed
	}
	if o.queued-o.cancels+size > limit {
		return addedFull
	}
	return added
}

func (o *outbox) commitLocked(lines []byte) {
	o.accountLocked(len(lines) - len(o.lines))
	o.lines = lines
	if len(lines) >= sealSize {
		o.full, o.lines = append(o.full, lines), nil
	}
	notify(o.wake)
}

// setPause replaces a pause or resume that has not been sent, so that these need no queue.
func (o *outbox) setPause(s pauseState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pause = s
	notify(o.wake)
}

// setDrain has a drain sent behind what is queued. The highest number stands for those below it.
func (o *outbox) setDrain(number int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drain = max(o.drain, number)
	notify(o.wake)
}

// setDrained replaces a drained that has not been sent: the latest number stands for those before it.
func (o *outbox) setDrained(number int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drained = number
	notify(o.wake)
}

// setMember replaces a membership that has not been sent.
func (o *outbox) setMember(m *wire.Membership) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.member = m
	notify(o.wake)
}

// take exchanges the writer's used-up buffer for queued lines, with the drain behind the last ones.
func (o *outbox) take(used []byte) []byte {
	if cap(used) > keepBusy {
		used = nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.full) > 0 {
		lines := o.full[0]
		o.full[0] = nil
		if o.full = o.full[1:]; o.lines == nil {
			o.lines = used[:0]
		}
		o.idle = false
		return lines
	}
	lines := o.lines
	if o.drain > 0 && !o.closed {
		lines = wire.AppendPeerDrain(lines, o.drain)
		o.accountLocked(len(lines) - len(o.lines))
		o.drain = 0
	}
	o.lines = used[:0]
	o.idle = len(lines) == 0 && !o.controlPendingLocked()
	return lines
}

// shrink gives up large buffers if nothing is queued; it returns the writer's.
func (o *outbox) shrink(used []byte) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.full) == 0 {
		o.full = nil
	}
	if len(o.lines) == 0 && cap(o.lines) > keepIdle {
		o.lines = nil
	}
	if cap(used) > keepIdle {
		return nil
	}
	return used
}

// takeControl returns the control lines to send between two other lines, nil if there are none.
func (o *outbox) takeControl() (lines []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch o.pause {
	case pauseOn:
		lines = wire.AppendPeerPause(lines)
	case pauseOff:
		lines = wire.AppendPeerResume(lines)
	}
	if o.drained >= 0 {
		lines = wire.AppendPeerDrained(lines, o.drained)
	}
	if o.member != nil {
		lines = wire.AppendPeerMember(lines, o.member)
	}
	o.pause, o.drained, o.member = pauseNone, -1, nil
	return lines
}

func (o *outbox) controlPending() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.controlPendingLocked()
}

func (o *outbox) controlPendingLocked() bool {
	return o.pause != pauseNone || o.drained >= 0 || o.member != nil
}

// sent notes that n bytes left the queue.
func (o *outbox) sent(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.accountLocked(-n)
	}
}

// accountLocked changes how much is queued.
func (o *outbox) accountLocked(n int) {
	if o.queued += n; o.queued == 0 {
		o.cancels = 0
	}
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

// close drops what is queued, and returns how many bytes that was.
func (o *outbox) close() (lost int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	lost, o.queued, o.cancels, o.full, o.lines, o.closed = o.queued, 0, 0, nil, nil, true
	return lost
}

// cut returns how many bytes of lines go into the next data channel message: as many as fit, but only up to
// the end of a line if a control line is to go between two lines.
func cut(lines []byte, toLineEnd bool) int {
	n := min(len(lines), wire.SliceSize)
	if toLineEnd {
		if end := bytes.IndexByte(lines[:n], '\n'); end >= 0 {
			return end + 1
		}
	}
	return n
}
