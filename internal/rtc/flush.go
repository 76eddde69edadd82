//go:build !js

package rtc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// Flush blocks until the peers that are connected now have what was sent to them before, or ctx ends; then its
// error names the peers that do not. A peer has it when it has acknowledged everything, or has responded to a
// drain: that takes one round trip, whereas SCTP may hold an acknowledgement back for 200 ms.
func (n *Node) Flush(ctx context.Context) error {
	var late, lateStreams []string
	var streams sync.WaitGroup
	streams.Go(func() { lateStreams = n.FlushStreams(ctx) })
	for _, f := range n.flushPeers() {
		if f.wait(ctx) == flushLate {
			late = append(late, f.peer.id)
		}
	}
	streams.Wait()
	if late = append(late, lateStreams...); late != nil {
		return fmt.Errorf("not everything was sent to %q: %w", late, ctx.Err())
	}
	return nil
}

// Unsent flushes like Flush, and returns the peers that may not have everything, with how many bytes they have not
// acknowledged of each lane. Those whose links have ended meanwhile are among them, but for peers that have left: these send
// no acknowledgement of what they have just read. Streams are not counted: a reader learns that one is not complete.
func (n *Node) Unsent(ctx context.Context) map[string][wire.Lanes]int {
	unsent := make(map[string][wire.Lanes]int)
	for _, f := range n.flushPeers() {
		end := f.wait(ctx)
		if end == flushDone || end == flushEnded && errors.Is(f.peer.why, ErrPeerClosed) {
			continue
		}
		sum, some := unsent[f.peer.id], false
		for lane := range sum {
			bytes := f.peer.Unacknowledged(wire.Lane(lane))
			if f.peer.drains && !f.peer.out.confirmed() { // which was behind them
				bytes -= len(wire.AppendPeerDrain(nil, f.number))
			}
			if bytes > 0 {
				sum[lane] += bytes
				some = true
			}
		}
		if some {
			unsent[f.peer.id] = sum
		}
	}
	return unsent
}

// Unacknowledged returns how many bytes of a lane the peer has not acknowledged, or had not when the link ended.
func (p *Peer) Unacknowledged(in wire.Lane) int {
	return p.out.unacknowledged(in, p.dc.BufferedAmount())
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

// FlushStreams blocks until the peers have what was written to streams, as far as their windows let it go, or ctx ends, and returns the
// ids of those that may not have it. One of them holds up no other.
func (n *Node) FlushStreams(ctx context.Context) (late []string) {
	n.peersMu.Lock()
	peers := slices.Collect(maps.Keys(n.peers))
	n.peersMu.Unlock()
	errs := make([]error, len(peers))
	var all sync.WaitGroup
	for i, p := range peers {
		all.Go(func() { errs[i] = p.flushStreams(ctx) })
	}
	all.Wait()
	for i, p := range peers {
		if errs[i] != nil && ctx.Err() != nil {
			late = append(late, p.id)
		}
	}
	return late
}

// unconfirmed returns how many of the last bytes of messages and control lines the peer may not have.
func (p *Peer) unconfirmed() uint64 {
	if p.out.confirmed() {
		return p.out.unconfirmed()
	}
	return p.dc.BufferedAmount()
}

// flushed reports whether everything was sent and acknowledged.
func (p *Peer) flushed() bool {
	return p.out.size() == 0 && p.unconfirmed() == 0
}

func (p *Peer) flush() *flush {
	f := p.flushes.begin(p)
	if !p.drains {
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

// outcome is how a flush ended.
type outcome uint8

const (
	flushDone  outcome = iota // the peer has everything
	flushEnded                // the link has ended before
	flushLate                 // the time was over
)

// wait blocks until the peer has everything, the link has ended, or ctx ends.
func (f *flush) wait(ctx context.Context) outcome {
	defer f.peer.flushes.forget(f)
	select {
	case <-f.done:
	case <-f.peer.done:
	case <-ctx.Done():
	}
	select {
	case <-f.done:
		return flushDone
	default:
	}
	select {
	case <-f.peer.done:
		return flushEnded
	default:
		return flushLate
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
	if p.drains {
		fs.last = p.out.setDrain() // with the lock held, since the response may be fast
	} else {
		fs.last++
	}
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
