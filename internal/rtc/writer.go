//go:build !js

package rtc

import (
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// callsInARow is how many slices of calls are written before one of ordered messages that wait, so that a peer whose
// calls never end gets those as well.
const callsInARow = 8

// messagesInARow is how many slices of messages are written before one of streams that wait.
const messagesInARow = 8

// A writer is what the writer goroutine of a Peer has in hand.
type writer struct {
	*Peer
	hand  [wire.Lanes]piece
	lanes bool // of the Peer, for the next slice
	row   int  // slices of calls since the last one of ordered messages
	ahead int  // slices of messages since streams had their turn
}

// A slice is one data channel message to write.
type slice struct {
	b       []byte
	text    bool
	control bool      // it is in no lane
	moves   bool      // it is the last on the data channel
	lane    wire.Lane // else
}

// write is the writer goroutine. It sends what is queued at once: holding it back for more would cost
// latency, and when the link is the bottleneck, there is more.
func (p *Peer) write() {
	w := writer{Peer: p}
	next := slice{b: p.hello, control: true}
	for {
		p.settleCongestion()
		if len(next.b) == 0 && !p.waitForRoom() {
			return
		}
		if len(next.b) == 0 {
			next = w.next()
		}
		if len(next.b) == 0 || w.streamsDue() {
			some, err := w.writeStreams()
			if err != nil {
				p.writeFailed(err)
				return
			}
			if some {
				continue
			}
		}
		if len(next.b) == 0 {
			p.budget.dry(p.transit.waiting())
			if p.out.rest(&w.hand) && !p.waitForLines() {
				return
			}
			continue
		}
		if err := p.writeSlice(next.b, next.text); err != nil {
			p.writeFailed(err)
			return
		}
		if next.moves {
			p.moveOut(localMessages)
		}
		if !next.control {
			w.hand[next.lane].pos += len(next.b)
			p.out.sent(next.lane, len(next.b))
		}
		w.ahead++
		next = slice{}
	}
}

// writeFailed handles a write that failed. The reader learns of it too, but not while it is stopped.
func (p *Peer) writeFailed(err error) {
	p.debug().Err(err).Msg("cannot write to the data channel")
	if c := p.move.socket(); c != nil && p.reading.shut() {
		p.hungUp(c.whyEnded())
		return
	}
	p.remoteGone()
}

// streamsDue reports whether what streams write has waited for enough slices of messages.
func (w *writer) streamsDue() bool { return w.ahead >= messagesInARow }

// writeStreams writes a slice of what streams write, and reports whether there was any.
func (w *writer) writeStreams() (some bool, err error) {
	w.ahead = 0
	c := w.streams.channelOrNil()
	if c == nil {
		return false, nil
	}
	write := func(b []byte, text bool) error {
		n, err := c.dc.WriteDataChannel(b, text)
		w.transit.handed.Add(uint64(n))
		return err
	}
	if w.move.due(localStreams) {
		err := write(wire.AppendPeerMoved(nil), true)
		if err == nil {
			w.moveOut(localStreams)
		}
		return true, err
	}
	return c.take(func(b []byte) error { return write(b, false) })
}

// next returns what to write next; nothing if there is nothing. Control lines go first, then calls, then ordered messages.
// With two streams each may interrupt a line of the lanes behind it, without them only go between two lines.
func (w *writer) next() slice {
	w.lanes = w.Peer.lanes.Load()
	calls, ordered := w.take(wire.LaneCalls), w.take(wire.LaneOrdered)
	if !w.stream {
		return w.slice(wire.LaneOrdered, ordered, false)
	}
	if w.move.due(localMessages) {
		return w.lastOfChannel(calls, ordered)
	}
	free := w.lanes || !ordered.within() // for lines that overtake ordered messages
	if free && !calls.within() {
		if lines := w.out.takeControl(); lines != nil {
			return slice{b: lines, text: w.lanes, control: true}
		}
	}
	waits := len(calls.rest()) > 0
	due := w.row >= callsInARow && len(ordered.rest()) > 0
	if len(ordered.rest()) > 0 && (!waits || !free || due && (w.lanes || !calls.within())) {
		w.row = 0
		return w.slice(wire.LaneOrdered, ordered, !w.lanes && (waits || w.out.controlPending()))
	}
	if waits {
		w.row++
	}
	return w.slice(wire.LaneCalls, calls, due || w.out.controlPending())
}

// take sees to it that there is something in hand of a lane, if there is anything.
func (w *writer) take(from wire.Lane) *piece {
	p := &w.hand[from]
	if p.pos == len(p.lines) {
		*p = piece{lines: w.out.take(from, p.lines)}
	}
	return p
}

// lastOfChannel returns what is left to write to the data channel, of which the last is that the rest goes over a socket.
func (w *writer) lastOfChannel(calls, ordered *piece) slice {
	switch {
	case calls.within():
		return w.slice(wire.LaneCalls, calls, true)
	case ordered.within():
		return w.slice(wire.LaneOrdered, ordered, true)
	}
	w.out.busy() // so that nobody writes beside this
	return slice{b: wire.AppendPeerMoved(w.out.takeControl()), text: w.lanes, control: true, moves: true}
}

func (w *writer) slice(of wire.Lane, p *piece, toLineEnd bool) slice {
	s := slice{lane: of, text: !w.stream || w.lanes && of == wire.LaneCalls}
	if !w.stream {
		s.b = p.message()
	} else {
		s.b = p.slice(toLineEnd, s.text)
	}
	return s
}

// writeSlice writes one data channel message.
func (p *Peer) writeSlice(b []byte, text bool) error {
	if !p.stream {
		b = b[:len(b)-1]
	}
	n, err := p.dc.WriteDataChannel(b, text)
	p.transit.handed.Add(uint64(n))
	return err
}

// writeDirect writes one line, if it fits one slice and there is room for it. The outbox calls it with its
// lock held; pion's write neither blocks nor calls back.
func (p *Peer) writeDirect(line []byte, of wire.Lane) bool {
	if p.stream && len(line) > wire.SliceSize || p.transit.waiting() > p.budget.size() {
		return false
	}
	return p.writeSlice(line, !p.stream || p.lanes.Load() && of == wire.LaneCalls) == nil // if it failed, the writer finds that out, too
}

// observe has the budget follow the path, and the low mark the budget.
func (p *Peer) observe() {
	_, acknowledged := p.transit.count()
	p.budget.observe(time.Now(), acknowledged)
	p.transit.lowMark(p.budget.low())
}

// waitForLines blocks until there may be something to write, and meanwhile sees to flushes. It returns false
// when the link has ended.
func (p *Peer) waitForLines() bool {
	if latest := p.flushes.latest(); latest == 0 {
		p.transit.lowMark(p.budget.low())
	} else {
		p.transit.lowMark(0) // before the check, or the last acknowledgement could come between the two
		if p.flushed() {
			p.flushes.settle(latest)
		}
	}
	select {
	case <-p.out.wake:
		return true
	case <-p.low:
		return true
	case <-p.opened:
		p.announce()
		return true
	case <-p.done:
		return false
	}
}

// waitForRoom blocks until the data channel may take one more slice. It returns false when the link has ended.
func (p *Peer) waitForRoom() bool {
	p.observe()
	for p.transit.waiting() > p.budget.size() {
		select {
		case <-p.low:
			p.observe()
		case <-p.out.wake:
			p.settleCongestion()
		case <-p.done:
			return false
		}
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}
