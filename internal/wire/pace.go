package wire

import (
	"sync/atomic"
	"time"
)

// pace is how long after the previous one a line counts as lone: about twice what the change to another
// goroutine costs.
const pace = 50 * time.Microsecond

// Pace decides whether a sender writes a line itself or leaves it to a writer goroutine. A lone line is best
// written at once, which spares the change to the writer's goroutine; the writer does better with lines that
// follow each other closely, since it packs several into one write. A line that comes after something from
// the other end is lone as well: it may be the response to that, or the next request.
//
// The zero value is ready to use. The owner of the queue guards it with the queue's lock, but for Heard.
type Pace struct {
	last  time.Time // when a line last found the queue idle
	heard atomic.Bool
}

// Lone reports whether a line that finds its queue idle now comes long enough after the previous such line
// that the sender should write it itself. It takes note of the line.
func (p *Pace) Lone() bool {
	now := time.Now()
	since := now.Sub(p.last)
	p.last = now
	return p.heard.Swap(false) || since >= pace
}

// Heard notes that something came from the other end. It may be called at any time.
func (p *Pace) Heard() {
	if !p.heard.Load() { // so that the memory stays with the senders
		p.heard.Store(true)
	}
}
