//go:build !js

package rtc

import (
	"bytes"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// write is the writer goroutine. It sends what is queued at once: holding it back for more would cost
// latency, and when the link is the bottleneck, there is more.
func (p *Peer) write() {
	var lines []byte // taken from the outbox
	pos := 0         // lines[:pos] is sent
	for {
		p.settleCongestion()
		if pos == len(lines) {
			lines, pos = p.out.take(lines), 0
		}
		between := pos == 0 || lines[pos-1] == '\n'
		var next []byte
		if between && p.stream {
			next = p.out.takeControl()
		}
		control := next != nil
		if !control {
			next = p.nextSlice(lines[pos:])
		}
		if len(next) == 0 {
			p.budget.dry()
			lines, pos = p.out.shrink(lines[:0]), 0
			if !p.waitForLines() {
				return
			}
			continue
		}
		if !p.waitForRoom() {
			return
		}
		if err := p.writeSlice(next); err != nil {
			// The reader learns of it too, but not while it is stopped.
			p.log.Debug().Err(err).Msg("cannot write to the data channel")
			p.remoteGone()
			return
		}
		if !control {
			pos += len(next)
			p.out.sent(len(next))
		}
	}
}

// nextSlice returns what to send next: in stream framing a slice of lines, in base framing one whole message
// with its newline.
func (p *Peer) nextSlice(lines []byte) []byte {
	if !p.stream {
		return lines[:bytes.IndexByte(lines, '\n')+1]
	}
	return lines[:cut(lines, p.out.controlPending())]
}

func (p *Peer) writeSlice(b []byte) error {
	if !p.stream {
		b = b[:len(b)-1]
	}
	n, err := p.dc.WriteDataChannel(b, !p.stream)
	p.handedOver.Add(uint64(n))
	return err
}

// observe has the budget follow the path, and the low mark the budget.
func (p *Peer) observe() {
	p.budget.observe(time.Now(), p.handedOver.Load()-p.dc.BufferedAmount())
	p.lowMark(p.budget.low())
}

// writeDirect writes one line, if it fits one slice and there is room for it. The outbox calls it with its
// lock held; pion's write neither blocks nor calls back.
func (p *Peer) writeDirect(line []byte) bool {
	if p.stream && len(line) > wire.SliceSize || p.dc.BufferedAmount() > p.budget.size() {
		return false
	}
	return p.writeSlice(line) == nil // if it failed, the writer finds that out, too
}

// waitForLines blocks until there may be something to write, and meanwhile sees to flushes. It returns false
// when the link has ended.
func (p *Peer) waitForLines() bool {
	if latest := p.flushes.latest(); latest == 0 {
		p.lowMark(p.budget.low())
	} else {
		p.lowMark(0) // before the check, or the last acknowledgement could come between the two
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
	for p.dc.BufferedAmount() > p.budget.size() {
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

// lowMark sets how far the data channel's unacknowledged bytes must fall for p.low. Only the writer calls it.
func (p *Peer) lowMark(bytes uint64) {
	if bytes != p.lowAt {
		p.lowAt = bytes
		p.dc.SetBufferedAmountLowThreshold(bytes)
	}
}
