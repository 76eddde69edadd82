package wire

import "time"

// pace is how long after the previous one a line counts as lone: about twice what the change to another
// goroutine costs.
const pace = 50 * time.Microsecond

// Pace decides whether a sender writes a line itself or leaves it to a writer goroutine. A lone line is best
// written at once, which spares the change to the writer's goroutine; the writer does better with lines that
// follow each other closely, since it packs several into one write.
//
// The zero value is ready to use. The owner of the queue guards it with the queue's lock.
type Pace struct {
	last time.Time // when a line last found the queue idle
}

// Lone reports whether a line that finds its queue idle now comes long enough after the previous such line
// that the sender should write it itself. It takes note of the line.
func (p *Pace) Lone() bool {
	now := time.Now()
	since := now.Sub(p.last)
	p.last = now
	return since >= pace
}
