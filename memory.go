package mesh

import "io"

// In one process the two ends of a link need no connection between them. Whoever
// takes an end's lines (pump) takes the buffer in which they wait on the other
// one, and gives back an empty one: a line is written once, into the memory from
// which it is read.

func newMemoryLinks() (a, b *link) {
	a, b = bareLink(), bareLink()
	a.far, b.far = b, a
	return a, b
}

// look has the link's lines taken, if somebody serves it.
func (l *link) look() {
	if p := l.pump.Load(); p != nil {
		p.wrote()
	}
}

// handOver returns the lines that wait at the far end, none if none do, and has
// that end use batch, which has been read.
func (l *link) handOver(batch []byte) ([]byte, error) {
	select {
	case <-l.done:
		return nil, l.why
	default:
	}
	far := l.far
	far.mu.Lock()
	defer far.mu.Unlock()
	if far.closed { // and we are about to be
		return nil, io.EOF
	}
	if len(far.charges) > 0 {
		far.taken = append(far.taken, far.charges...)
		clear(far.charges)
		far.charges = far.charges[:0]
		far.wakeUp()
	}
	return far.swap(batch), nil
}

// settleLoop is writeLoop in memory: others write and read, but to tell an
// account is for none of them, who may hold its locks.
func (l *link) settleLoop() {
	var charges []charge
	for open := true; open; {
		select {
		case <-l.wake:
		case <-l.done:
			open = false
		}
		l.mu.Lock()
		clear(charges)
		charges, l.taken = l.taken, charges[:0]
		l.mu.Unlock()
		settle(charges)
	}
	l.drop()
}
