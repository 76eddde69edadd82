//go:build !js

package rtc

import "github.com/chatixia-ai/mesh/internal/wire"

// maxDrainMarks bounds the drains that are remembered: of those that the other end does not respond to there may be any number.
const maxDrainMarks = 64

// confirms are what the other end of a socket is known to have read, since a socket tells nothing of that: what is before a drain that it has
// responded to.
type confirms struct {
	later func() // has confirm called; nil where the data channel's acknowledgements count
	armed bool   // later was called, and confirm was not since then

	marks []drainMark // of drains without a response, the latest
	until mark        // what is confirmed
}

// A drainMark is what was handed over before a drain.
type drainMark struct {
	number int
	before mark
}

// wrote notes that there are bytes to confirm. At most one drain is under way for that.
func (c *confirms) wrote() {
	if !c.armed && len(c.marks) == 0 {
		c.armed = true
		c.later()
	}
}

// drain notes a drain behind what was handed over.
func (c *confirms) drain(number int, before mark) {
	if c.later == nil {
		return
	}
	if len(c.marks) == maxDrainMarks {
		c.marks = c.marks[:copy(c.marks, c.marks[1:])]
	}
	c.marks = append(c.marks, drainMark{number, before})
}

func (c *confirms) drained(number int) {
	n := 0
	for ; n < len(c.marks) && c.marks[n].number <= number; n++ {
		c.until = c.marks[n].before
	}
	c.marks = c.marks[:copy(c.marks, c.marks[n:])]
}

// unconfirmed returns how many bytes of a lane, of those handed over, the peer may not have.
func (c *confirms) unconfirmed(of wire.Lane, handed *mark) int {
	return int(handed.lanes[of] - c.until.lanes[of])
}

// byDrains has what the peer has follow from drains alone, from now on. Of what was handed over so many bytes are not acknowledged. later is
// called when some bytes are to be confirmed, and not again before confirm was.
func (o *outbox) byDrains(unacknowledged uint64, later func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	until := o.flight.handed
	until.total -= min(unacknowledged, until.total)
	for i := range until.lanes {
		until.lanes[i] -= uint64(o.flight.unacknowledged(wire.Lane(i), unacknowledged))
	}
	o.confirms = confirms{later: later, until: until}
	o.confirmLocked()
}

// confirmed reports whether what the peer has follows from drains.
func (o *outbox) confirmed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.confirms.later != nil
}

// confirmLocked sees to it that what is not confirmed will be, unless a drain is to be sent anyway.
func (o *outbox) confirmLocked() {
	if o.confirms.later != nil && o.drain.number == 0 && !o.closed && o.confirms.until.total < o.flight.handed.total {
		o.confirms.wrote()
	}
}

// heardDrained notes that the peer has everything before the drain of this number.
func (o *outbox) heardDrained(number int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.confirms.drained(number)
	o.confirmLocked()
}

// unconfirmed returns how many bytes of those that were handed over the peer may not have, as follows from drains.
func (o *outbox) unconfirmed() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.flight.handed.total - o.confirms.until.total
}

// confirm has a drain sent, unless one is to be sent or has no response yet. A further one would put it off.
func (o *outbox) confirm() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.confirms.armed = false
	if o.drain.number == 0 && len(o.confirms.marks) == 0 && !o.closed && o.confirms.until.total < o.flight.handed.total {
		o.setDrainLocked()
	}
}
