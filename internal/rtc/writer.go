package rtc

import (
	"bytes"

	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// bufferedHigh is how much the data channel may hold that the peer has not acknowledged. The rest
	// waits in our queue, where it is counted, bounded, and can be overtaken.
	bufferedHigh = 512 << 10
	// bufferedLow is when the writer goes on. The difference is what one wake-up is spread over.
	bufferedLow = 256 << 10
)

// write is the writer goroutine. It sends what is queued at once: waiting for more would cost latency,
// and when the link is the bottleneck, there is more.
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
			next = p.out.takePause()
		}
		control := next != nil
		if !control {
			next = p.nextSlice(lines[pos:])
		}
		if len(next) == 0 {
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
			p.reading.remoteGone()
			return
		}
		if !control {
			pos += len(next)
			p.out.sent(len(next))
		}
	}
}

// nextSlice returns what to send next of lines, its newline included.
func (p *Peer) nextSlice(lines []byte) []byte {
	if !p.stream {
		return lines[:bytes.IndexByte(lines, '\n')+1]
	}
	return lines[:cut(lines, p.out.pausePending())]
}

func (p *Peer) writeSlice(b []byte) error {
	if !p.stream {
		_, err := p.dc.WriteDataChannel(b[:len(b)-1], true)
		return err
	}
	_, err := p.dc.WriteDataChannel(b, false)
	return err
}

// writeDirect writes one line, if that is one slice and need not wait.
func (p *Peer) writeDirect(line []byte) bool {
	if p.stream && len(line) > wire.SliceSize || p.dc.BufferedAmount() > bufferedHigh {
		return false
	}
	return p.writeSlice(line) == nil // if not, the writer will find out, too
}

func (p *Peer) waitForLines() bool {
	select {
	case <-p.out.wake:
		return true
	case <-p.opened:
		p.announce()
		return true
	case <-p.done:
		return false
	}
}

// waitForRoom waits until the data channel may take one more slice.
func (p *Peer) waitForRoom() bool {
	for p.dc.BufferedAmount() > bufferedHigh {
		select {
		case <-p.low:
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
