package link

import (
	"bytes"
	"math"
	"sync/atomic"
)

// pumpShare is how many lines a goroutine takes that came to write one; a long line counts as one for each
// KiB.
const pumpShare = 64

// A pump takes the lines of one end of a pipe without a goroutine that waits for them: the goroutine
// that wrote a lone line has it taken, too, unless another one is at it already. So a message passes from
// agent to sidecar, and back, without a change of goroutine, which takes longer than all else that
// happens to it on the link.
//
// The owner, the goroutine in Serve, takes lines that follow each other closely (wire.Pace), which then go through both ends at the same
// time, and takes over when so much comes that it would hold up the writer.
type pump struct {
	memory *memory
	take   Take

	batch []byte // what was taken from the other end
	rest  []byte // the part of batch that is still to be taken

	// Of the goroutine that has the pump.
	inline bool   // it can do what a line calls for
	left   func() // that is for it to do

	state atomic.Int32
	owner chan struct{} // buffered 1: it is the owner's turn
	ended chan struct{} // closed when take wanted no more lines
	over  bool          // ended is closed; belongs to the goroutine that has the pump
}

// The states of a pump.
const (
	pumpIdle  int32 = iota
	pumpBusy        // a goroutine has it
	pumpAgain       // and is to look once more
)

func newPump(m *memory, take Take) *pump {
	return &pump{memory: m, take: take, owner: make(chan struct{}, 1), ended: make(chan struct{})}
}

// work is the owner's part. It returns after the last line.
func (p *pump) work() {
	for {
		select {
		case <-p.owner:
			p.run(math.MaxInt)
		case <-p.ended:
			return
		}
	}
}

// wrote is called after lines were written, without a lock that taking a line may need. inline says that the caller can do what a line calls
// for, which it returns.
func (p *pump) wrote(inline bool) (work func()) {
	if !p.claim() {
		return nil
	}
	more := true
	p.inline = inline
	defer func() { // also after a panic, which the writer may recover
		if !more {
			return
		}
		if left := p.takeLeft(); left != nil { // only after a panic
			go left() // Leave's caller waits for its end
		}
		p.owner <- struct{}{} // only the goroutine that has the pump sends
	}()
	work, more = p.run(pumpShare)
	return work
}

// leaveToOwner has the owner take the lines that were written.
func (p *pump) leaveToOwner() {
	if p.claim() {
		p.owner <- struct{}{}
	}
}

// leave is Link.Leave.
func (p *pump) leave(work func()) bool {
	if !p.inline || p.left != nil || len(p.rest) > 0 {
		return false
	}
	p.left = work
	return true
}

// claim gives the caller the pump, or has the goroutine that has it look again.
func (p *pump) claim() bool {
	for {
		if p.state.CompareAndSwap(pumpIdle, pumpBusy) {
			return true
		}
		if p.state.CompareAndSwap(pumpBusy, pumpAgain) || p.state.Load() == pumpAgain {
			return false
		}
	}
}

// run takes lines until there are none, and gives the pump back; or keeps it and returns true, after a
// share of them. It also returns what was left for the caller to do.
func (p *pump) run(share int) (work func(), more bool) {
	for {
		for n := 0; ; share -= 1 + n>>10 {
			if share <= 0 {
				return p.takeLeft(), true
			}
			var ok bool
			if n, ok = p.next(); !ok {
				break
			}
		}
		work = p.takeLeft()
		if p.state.CompareAndSwap(pumpBusy, pumpIdle) {
			return work, false
		}
		p.left = work
		p.state.Store(pumpBusy)
	}
}

// takeLeft takes what was left to do. Nothing more will be.
func (p *pump) takeLeft() (work func()) {
	work, p.left, p.inline = p.left, nil, false
	return work
}

// next takes one line, of n bytes, if one is there. Our own codec wrote it, so its end can be relied on;
// take checks what it says.
func (p *pump) next() (n int, ok bool) {
	if p.over {
		return 0, false
	}
	var err error
	if len(p.rest) == 0 {
		p.batch, err = p.memory.handOver(p.batch)
		p.rest = p.batch
	}
	var line []byte
	switch {
	case err == nil && len(p.rest) == 0:
		return 0, false
	case err == nil:
		p.memory.pace.Heard()
		line, p.rest, _ = bytes.Cut(p.rest, newline)
	}
	if !p.take(line, err) {
		p.over = true
		close(p.ended)
	}
	return len(line), !p.over
}

var newline = []byte{'\n'}
