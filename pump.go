package mesh

import (
	"errors"
	"sync/atomic"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// pumpShare is how many lines a goroutine takes that came to write one.
const pumpShare = 64

// A pump reads one end of an in-memory link without a goroutine that waits for
// lines: whoever wrote one has it taken, too, unless somebody is at it already.
// So a message passes from agent to sidecar, and back, without a change of
// goroutine, which takes longer than all else that happens to it on the link.
//
// The owner, in serve, takes over where that would hold up the writer: when many
// lines come, and when a writer must not wait and the taking of a line may.
type pump struct {
	link  *link
	take  func(line []byte, err error) bool
	waits bool // take may wait

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

// work is the owner's part. It returns after the last line.
func (p *pump) work() {
	for {
		select {
		case <-p.owner:
			for p.run(pumpShare) {
			}
		case <-p.ended:
			return
		}
	}
}

// wrote is called after something was written, without locks.
func (p *pump) wrote(mayWait bool) {
	if !p.claim() {
		return
	}
	if p.waits && !mayWait || p.run(pumpShare) {
		p.owner <- struct{}{} // the one who has the pump is the only one to send
	}
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

// run takes lines until there are none, and gives the pump back; or a share of
// them, keeps it, and returns true.
func (p *pump) run(share int) (more bool) {
	for {
		for p.next() {
			if share--; share == 0 {
				return true
			}
		}
		if p.state.CompareAndSwap(pumpBusy, pumpIdle) {
			return false
		}
		p.state.Store(pumpBusy)
	}
}

// next takes one line, if one is there.
func (p *pump) next() bool {
	if p.over {
		return false
	}
	line, err := p.link.ReadLine()
	if errors.Is(err, wire.ErrNothingYet) {
		return false
	}
	if !p.take(line, err) {
		p.over = true
		close(p.ended)
	}
	return !p.over
}
