package mesh

import (
	"bytes"
	"math"
	"sync/atomic"
)

// pumpShare is how much a goroutine takes that came to write a line: as many
// lines, where a long one counts as one for each KiB.
const pumpShare = 64

// A pump reads one end of an in-memory link without a goroutine that waits for
// lines: whoever wrote one has it taken, too, unless somebody is at it already.
// So a message passes from agent to sidecar, and back, without a change of
// goroutine, which takes longer than all else that happens to it on the link.
//
// The owner, in serve, takes over where that would hold up the writer: when much
// comes, and when the taking of a line may wait.
type pump struct {
	link *link
	take func(line []byte, err error) bool
	// waits tells that take may wait for what it is given next: then that is for
	// the owner, not for somebody who came to write a line.
	waits func() bool

	batch []byte // what was taken from the far end
	rest  []byte // the part of batch that is still to be taken

	state atomic.Int32
	owner chan struct{} // buffered 1: it is the owner's turn
	ended chan struct{} // closed when take said that it was the last line
	over  bool          // ended is closed; of whoever has the pump
}

// The states of a pump.
const (
	pumpIdle  int32 = iota
	pumpBusy        // somebody has it
	pumpAgain       // and is to look once more
)

func newPump(l *link, waits func() bool, take func(line []byte, err error) bool) *pump {
	return &pump{link: l, take: take, waits: waits, owner: make(chan struct{}, 1), ended: make(chan struct{})}
}

// work is the owner's part. It returns after the last line.
func (p *pump) work() {
	for {
		select {
		case <-p.owner:
			p.run(math.MaxInt, never)
		case <-p.ended:
			return
		}
	}
}

// wrote is called after something was written, without a lock that taking a
// line may need.
func (p *pump) wrote() {
	if !p.claim() {
		return
	}
	more := true
	defer func() { // also after a panic: a handler's, say, is recovered
		if more {
			p.owner <- struct{}{} // whoever has the pump is the only one to send
		}
	}()
	more = p.run(pumpShare, p.waits)
}

// claim makes the caller the one who has the pump, or has that one look again.
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

// run takes lines until there are none, and gives the pump back; or keeps it and
// returns true, after a share of them or before one that may have to wait.
func (p *pump) run(share int, waits func() bool) (more bool) {
	for {
		for n := 0; ; share -= 1 + n>>10 {
			if share <= 0 || waits() {
				return true
			}
			var ok bool
			if n, ok = p.next(); !ok {
				break
			}
		}
		if p.state.CompareAndSwap(pumpBusy, pumpIdle) {
			return false
		}
		p.state.Store(pumpBusy)
	}
}

// next takes one line, of n bytes, if one is there. That lines end where they
// should is our own codec's doing; what they say is take's to check.
func (p *pump) next() (n int, ok bool) {
	if p.over {
		return 0, false
	}
	var err error
	if len(p.rest) == 0 {
		p.batch, err = p.link.handOver(p.batch)
		p.rest = p.batch
	}
	var line []byte
	switch {
	case err == nil && len(p.rest) == 0:
		return 0, false
	case err == nil:
		line, p.rest, _ = bytes.Cut(p.rest, newline)
	}
	if !p.take(line, err) {
		p.over = true
		close(p.ended)
	}
	return len(line), !p.over
}

var newline = []byte{'\n'}

// never is what waits is for a take that never waits.
func never() bool { return false }
