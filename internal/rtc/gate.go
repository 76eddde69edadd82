package rtc

import "sync"

// gate is where a reader waits while reading is stopped.
type gate struct {
	mu     sync.Mutex
	change sync.Cond
	off    bool // stopped by SetReading
	gone   bool // the far end has closed: what it sent can be read, but not waited for
	closed bool
}

func (g *gate) init() { g.change.L = &g.mu }

// wait returns true when the reader may go on and false when it should end.
func (g *gate) wait() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.off && !g.gone && !g.closed {
		g.change.Wait()
	}
	return !g.off && !g.closed
}

func (g *gate) set(on bool) { g.update(func() { g.off = !on }) }
func (g *gate) remoteGone() { g.update(func() { g.gone = true }) }
func (g *gate) close()      { g.update(func() { g.closed = true }) }

func (g *gate) update(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
	g.change.Broadcast()
}
