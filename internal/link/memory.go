package link

import (
	"io"
	"sync/atomic"

	"github.com/chatixia-ai/mesh/internal/relief"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// A memory carries lines within this process, without a connection: the end that takes lines (pump)
// takes the buffer in which they wait on the other one, and gives back an empty one. So a line is written
// once, into the memory from which it is read.
type memory struct {
	link, far *Link
	other     *memory              // far's carrier
	pump      atomic.Pointer[pump] // takes what far has, once this end is served
	taken     []charge             // for lines that far has taken; guarded by link.mu
	pace      wire.Pace            // of the lines of this end; guarded by link.mu, but for Heard
	flowing   atomic.Bool          // they follow each other closely
}

// Pipe returns the two ends of a link in memory.
func Pipe() (a, b *Link) {
	ma, mb := &memory{link: newLink()}, &memory{link: newLink()}
	ma.far, ma.other = mb.link, mb
	mb.far, mb.other = ma.link, ma
	ma.link.carrier, mb.link.carrier = ma, mb
	return ma.link, mb.link
}

// passLocked leaves everything to added, which has a lone line taken before its writer goes on.
func (m *memory) passLocked() bool {
	lone := m.pace.Lone()
	m.flowing.Store(!lone)
	return lone
}

func (m *memory) added(inline bool) (work func()) {
	if p := m.other.pump.Load(); p != nil && m.flowing.Load() && !inline {
		p.leaveToOwner()
		return nil
	}
	return m.other.look(inline)
}

// look has the lines for this end taken, if it is served.
func (m *memory) look(inline bool) (work func()) {
	if p := m.pump.Load(); p != nil {
		return p.wrote(inline)
	}
	return nil
}

func (m *memory) leave(work func()) bool { return m.pump.Load().leave(work) }

// run only settles charges: the goroutines that write and read take the lines, and they may hold the
// locks of accounts.
func (m *memory) run() {
	var charges []charge
	for open := true; open; {
		select {
		case <-m.link.wake:
		case <-m.link.done:
			open = false
		}
		m.link.mu.Lock()
		clear(charges)
		charges, m.taken = m.taken, charges[:0]
		m.link.mu.Unlock()
		settle(charges)
	}
	m.link.drop()
}

func (m *memory) serve(take Take, _ *relief.Watch) {
	p := newPump(m, take)
	m.pump.Store(p)
	p.wrote(false) // lines may have come before
	p.work()
}

// handOver returns the lines that wait at the other end, if any, and gives that end the memory of used,
// whose lines have been taken.
func (m *memory) handOver(used []byte) ([]byte, error) {
	if why := m.link.endReason(); why != nil {
		return nil, why
	}
	far := m.far
	far.mu.Lock()
	defer far.mu.Unlock()
	if far.closed { // and this end is about to be
		return nil, io.EOF
	}
	b := far.takeLocked(batch{lines: used})
	if len(b.charges) > 0 {
		m.other.taken = append(m.other.taken, b.charges...)
		far.wakeUp()
		clear(b.charges)
		if far.waiting.charges == nil {
			far.waiting.charges = b.charges[:0]
		}
	}
	return b.lines, nil
}

func (m *memory) close(first bool) {
	if !first {
		return
	}
	m.far.end(io.EOF)
	m.look(false) // both readers see it
	m.other.look(false)
}
