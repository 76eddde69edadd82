//go:build !js

package rtc

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// Flush blocks until the peers that are connected now have what was sent to them before, or ctx ends; then its
// error names the peers that do not. A peer has it when it has acknowledged everything, or has responded to a
// drain: that takes one round trip, whereas SCTP may hold an acknowledgement back for 200 ms.
func (n *Node) Flush(ctx context.Context) error {
	var late []string
	for _, f := range n.flushPeers() {
		if !f.wait(ctx) {
			late = append(late, f.peer.id)
		}
	}
	if late != nil {
		return fmt.Errorf("not everything was sent to %q: %w", late, ctx.Err())
	}
	return nil
}

// flushPeers begins a flush of each live peer that needs one.
func (n *Node) flushPeers() (fs []*flush) {
	n.peersMu.Lock()
	defer n.peersMu.Unlock()
	for p := range n.peers {
		if p.live() && !p.flushed() {
			fs = append(fs, p.flush())
		}
	}
	return fs
}

// flushed reports whether everything was sent and acknowledged.
func (p *Peer) flushed() bool {
	return p.out.size() == 0 && p.dc.BufferedAmount() == 0
}

func (p *Peer) flush() *flush {
	f := p.flushes.begin(p)
	if p.drains {
		p.out.setDrain(f.number)
	} else {
		notify(p.out.wake) // for the writer to watch the acknowledgements
	}
	return f
}

// poke has the peer respond with something, if it can.
func (p *Peer) poke() {
	if p.drains && p.flushed() {
		p.flush()
	}
}

// flush is one call of Flush as far as it is about one peer.
type flush struct {
	peer   *Peer
	number int           // that of its drain
	done   chan struct{} // closed when the peer has everything
}

// wait blocks until the peer has everything or the link has ended. It returns false if ctx ended first.
func (f *flush) wait(ctx context.Context) bool {
	defer f.peer.flushes.forget(f)
	select {
	case <-f.done:
		return true
	case <-f.peer.done:
		return true
	case <-ctx.Done():
	}
	select {
	case <-f.done:
		return true
	case <-f.peer.done:
		return true
	default:
		return false
	}
}

// flushes are the flushes of one peer that are under way.
type flushes struct {
	mu   sync.Mutex
	last int // number of the latest
	open []*flush
}

func (fs *flushes) begin(p *Peer) *flush {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.last++
	f := &flush{peer: p, number: fs.last, done: make(chan struct{})}
	fs.open = append(fs.open, f)
	return f
}

// latest returns the number of the latest flush under way, 0 if there is none.
func (fs *flushes) latest() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if len(fs.open) == 0 {
		return 0
	}
	return fs.last
}

// settle ends the flushes up to a number.
func (fs *flushes) settle(number int) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.open = slices.DeleteFunc(fs.open, func(f *flush) bool {
		if f.number > number {
			return false
		}
		close(f.done)
		return true
	})
}

// forget removes a flush that is over or was given up.
func (fs *flushes) forget(f *flush) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.open = slices.DeleteFunc(fs.open, func(other *flush) bool { return other == f })
}
