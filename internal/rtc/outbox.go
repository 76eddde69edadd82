//go:build !js

package rtc

import (
	"sync"
	"sync/atomic"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// cancelRoom is how many bytes of cancels may be queued. They have room of their own: they relieve a congested peer, and
// take none from messages.
const cancelRoom = 256 << 10

// pauseState is a pause or resume that is to be sent.
type pauseState uint8

const (
	pauseNone pauseState = iota
	pauseOrdered
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

// outbox is the queue of lines to one peer, in lanes.
type outbox struct {
	wake chan struct{} // there is something for the writer

	// direct writes lines while the outbox is idle, or returns false. It is called with mu held, so that no
	// other line overtakes them.
	direct    func(lines []byte, of wire.Lane) bool
	single    bool // all messages are in one lane, as in base framing
	high, low int  // of each lane

	stop atomic.Uint32 // wire.Stop that follows from the congested lanes; written under mu

	mu       sync.Mutex
	lanes    [wire.Lanes]lane
	flight   flight
	confirms confirms
	cancels  int    // bytes of cancels that were added since all of them had been sent
	last     uint64 // where the last of them ends in their lane
	pause    pauseState
	drain    drain
	drains   int // how many were set
	drained  int // number of the drained to send; -1 if there is none
	member   *wire.Membership
	card     *[]byte // to be told; nil if there is nothing new
	local    []byte  // lines about a move, to be sent
	streams  bool    // a channel for streams is to be asked for
	closed   bool
	lost     [wire.Lanes]int // bytes that were queued when it was closed
	idle     bool            // the writer has nothing in hand
	pace     wire.Pace
}

// A drain is sent once what was queued before it has been.
type drain struct {
	number int // 0 if there is none
	behind [wire.Lanes]uint64
}

func newOutbox(high, low int, single bool, direct func([]byte, wire.Lane) bool) *outbox {
	return &outbox{wake: make(chan struct{}, 1), high: high, low: low, single: single, direct: direct, drained: -1}
}

// addMessage adds a message, unless it would make its lane longer than limit.
func (o *outbox) addMessage(msg []byte, in wire.Lane, limit int) addResult {
	if o.single {
		in = wire.LaneOrdered
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	l := &o.lanes[in]
	queued := l.queued()
	if in == wire.LaneCalls {
		queued -= o.cancels
	}
	switch {
	case o.closed:
		return addedClosed
	case queued+len(msg)+1 > limit:
		return addedFull
	}
	l.reserve(len(msg) + 1)
	lines := wire.AppendPeerMessage(l.lines, msg)
	if o.emptyLocked() && o.pace.Lone() && o.direct(lines, in) {
		l.lines = lines[:0]
		o.flight.add(in, len(lines))
		o.confirmLocked()
		return added
	}
	o.commitLocked(in, lines)
	return added
}

// addCancel adds a cancel, unless there are too many. It is in the lane of its request, which it must not overtake.
func (o *outbox) addCancel(requestID string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := &o.lanes[wire.LaneCalls]
	lines := wire.AppendPeerCancel(l.lines, requestID)
	n := len(lines) - len(l.lines)
	if o.closed || o.cancels+n > cancelRoom {
		return
	}
	o.cancels += n
	o.last = l.added + uint64(n)
	o.commitLocked(wire.LaneCalls, lines)
}

// emptyLocked reports whether a new line would be the next one written.
func (o *outbox) emptyLocked() bool {
	return o.idle && o.lanes[wire.LaneCalls].empty() && o.lanes[wire.LaneOrdered].empty() && !o.controlPendingLocked()
}

func (o *outbox) commitLocked(in wire.Lane, lines []byte) {
	o.lanes[in].commit(lines)
	o.settleLocked()
	notify(o.wake)
}

// settleLocked decides what is congested.
func (o *outbox) settleLocked() {
	for i := range o.lanes {
		o.lanes[i].settle(o.high, o.low)
	}
	if o.lanes[wire.LaneCalls].sent >= o.last {
		o.cancels = 0
	}
	stop := wire.StopNothing
	switch {
	case o.lanes[wire.LaneCalls].congested || o.single && o.lanes[wire.LaneOrdered].congested:
		stop = wire.StopAll
	case o.lanes[wire.LaneOrdered].congested:
		stop = wire.StopOrdered
	}
	o.stop.Store(uint32(stop))
}

// congestion returns what is to be held back.
func (o *outbox) congestion() wire.Stop { return wire.Stop(o.stop.Load()) }

// setPause replaces a pause or resume that has not been sent, so that these need no queue.
func (o *outbox) setPause(s pauseState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pause = s
	notify(o.wake)
}

// setDrain has a drain sent behind what is queued, and returns its number. The highest number stands for those below it.
func (o *outbox) setDrain() (number int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.setDrainLocked()
}

func (o *outbox) setDrainLocked() (number int) {
	o.drains++
	o.drain.number = o.drains
	for i := range o.lanes {
		o.drain.behind[i] = o.lanes[i].added
	}
	notify(o.wake)
	return o.drains
}

// setDrained replaces a drained that has not been sent: the latest number stands for those before it.
func (o *outbox) setDrained(number int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drained = max(o.drained, number)
	notify(o.wake)
}

// setStreams has the other end asked to make the channel for streams.
func (o *outbox) setStreams() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.streams = true
	notify(o.wake)
}

// setMember replaces a membership that has not been sent.
func (o *outbox) setMember(m *wire.Membership) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.member = m
	notify(o.wake)
}

// setCard replaces a card that has not been sent.
func (o *outbox) setCard(card []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.card = &card
	notify(o.wake)
}

// addLocal adds a line about a move.
func (o *outbox) addLocal(line []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.local = append(o.local, line...)
	notify(o.wake)
}

// take exchanges the writer's used-up buffer for lines queued in a lane.
func (o *outbox) take(from wire.Lane, used []byte) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := o.lanes[from].take(used)
	o.idle = o.idle && len(lines) == 0
	return lines
}

// rest notes that the writer has nothing in hand, and takes back what it does not need meanwhile. It returns false if
// there is something to write.
func (o *outbox) rest(hand *[wire.Lanes]piece) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.idle = true
	if o.idle = o.emptyLocked(); !o.idle {
		return false
	}
	for i := range o.lanes {
		hand[i] = piece{lines: o.lanes[i].shrink(hand[i].lines)}
	}
	return true
}

// takeControl returns the control lines to send between two other lines, nil if there are none.
func (o *outbox) takeControl() (lines []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch o.pause {
	case pauseOrdered:
		lines = wire.AppendPeerPause(lines, true)
	case pauseOn:
		lines = wire.AppendPeerPause(lines, false)
	case pauseOff:
		lines = wire.AppendPeerResume(lines)
	}
	if o.drained >= 0 {
		lines = wire.AppendPeerDrained(lines, o.drained)
	}
	if o.member != nil {
		lines = wire.AppendPeerMember(lines, o.member)
	}
	if o.card != nil {
		lines = wire.AppendPeerCard(lines, *o.card)
	}
	lines = append(lines, o.local...)
	if o.streams {
		lines = wire.AppendPeerStreams(lines)
	}
	o.pause, o.drained, o.member, o.card, o.local, o.streams = pauseNone, -1, nil, nil, nil, false
	if o.drainDueLocked() {
		lines = wire.AppendPeerDrain(lines, o.drain.number)
		o.confirms.drain(o.drain.number, o.flight.handed)
		o.drain.number = 0
	}
	o.idle = o.idle && lines == nil
	return lines
}

// drainDueLocked reports whether all that was queued before the drain has been sent.
func (o *outbox) drainDueLocked() bool {
	for i := range o.lanes {
		if o.lanes[i].sent < o.drain.behind[i] {
			return false
		}
	}
	return o.drain.number > 0 && !o.closed
}

func (o *outbox) controlPending() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.controlPendingLocked()
}

func (o *outbox) controlPendingLocked() bool {
	return o.pause != pauseNone || o.drained >= 0 || o.member != nil || o.card != nil || o.local != nil || o.streams || o.drainDueLocked()
}

// sent notes that n bytes from a lane were sent.
func (o *outbox) sent(from wire.Lane, n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flight.add(from, n)
	o.confirmLocked()
	if !o.closed {
		o.lanes[from].sent += uint64(n)
		o.settleLocked()
	}
}

// size returns how many bytes are queued.
func (o *outbox) size() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sizeLocked()
}

func (o *outbox) sizeLocked() (bytes int) {
	for i := range o.lanes {
		bytes += o.lanes[i].queued()
	}
	return bytes
}

// busy notes that the writer has something in hand.
func (o *outbox) busy() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.idle = false
}

// unacknowledged returns how many bytes of a lane are queued, or were when the link ended, or are among the last bytes handed
// over, which are not acknowledged; on a socket, not confirmed.
func (o *outbox) unacknowledged(in wire.Lane, last uint64) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	queued := o.lanes[in].queued() + o.lost[in]
	if o.confirms.later != nil {
		return queued + o.confirms.unconfirmed(in, &o.flight.handed)
	}
	return queued + o.flight.unacknowledged(in, last)
}

// close drops what is queued, and returns how many bytes that was.
func (o *outbox) close() (lost int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.lanes {
		o.lost[i] += o.lanes[i].queued()
		lost += o.lanes[i].queued()
	}
	o.lanes, o.cancels, o.closed = [wire.Lanes]lane{}, 0, true
	return lost
}
