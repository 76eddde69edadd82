//go:build !js

package rtc

import "sync"

// gate holds a reader while reading is stopped.
type gate struct {
	mu     sync.Mutex
	change sync.Cond
	off    bool // stopped by SetReading
	gone   bool // the far end has closed: a reader that is not stopped reads the rest, a stopped one ends
	closed bool
}

func (g *gate) init() { g.change.L = &g.mu }

// wait blocks while reading is stopped. It reports whether the reader is to go on; otherwise it is to end.
func (g *gate) wait() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.off && !g.gone && !g.closed {
		g.change.Wait()
	}
	return !g.off && !g.closed
}

// shut reports whether reading is stopped.
func (g *gate) shut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.off
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
