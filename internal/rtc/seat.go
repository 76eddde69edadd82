//go:build !js

package rtc

import (
	"context"
	"math"
	"sync"
	"sync/atomic"

	"github.com/chatixia-ai/mesh/internal/relief"
	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// guestLine is how long a line may be, in bytes, that a guest reads: the reader of lines has room for it without asking.
	guestLine = 16 << 10
	// unlucky is how many guests are turned away after one has found what it did not wait for.
	unlucky = 64
)

// A seat is the place from which a peer's socket is read. It belongs to the reader, but while there is nothing to read it is vacant, and a guest,
// who waits for a response, may have it.
type seat struct {
	wanted atomic.Bool  // there have been guests
	closed atomic.Int32 // to so many guests

	mu     sync.Mutex
	left   sync.Cond   // by a guest
	watch  *sock.Watch // what the reader waits for while the seat is vacant; nil: it waits in its seat
	reader *reader     // valid while the seat is vacant
	vacant bool
}

// Attend has the caller read what the peer sends until g is over, or ctx, if no other goroutine reads. It may return before g is over.
func (p *Peer) Attend(ctx context.Context, g *relief.Guest) {
	r := p.seat.take()
	if r == nil {
		return
	}
	c := r.move.socket()
	g.Sit(c.direct)
	stop := context.AfterFunc(ctx, g.Leave)
	c.direct.Until, r.from.from.guest = g, true
	defer func() { // also after a panic, which the caller may recover
		c.direct.Until, r.from.from.guest = nil, false
		stop()
		g.Sit(nil)
		if !g.Over() {
			p.seat.closed.Store(unlucky)
		}
		p.seat.leave(r.failed != nil || r.kept || !r.idle())
	}()
	for r.failed == nil && !r.kept && !g.Over() && !r.reading.shut() && r.attend(g) {
	}
}

// attend reads one line for a guest, and reports whether it was for it. All others are the reader's to pass on: they may lead to code of the
// application, which knows nothing of guests.
func (r *reader) attend(g *relief.Guest) (more bool) {
	switch err := r.takeLine(); {
	case err == wire.ErrLater: //nolint:errorlint // it is never wrapped
		return r.from.whole() // the guest was interrupted, or the line is too long for it
	case err != nil:
		r.failed = err
	case !r.isFor(g):
		r.kept = true
		return false
	default:
		r.failed = r.passLine()
	}
	return r.failed == nil
}

// isFor reports whether the line that was read is what a guest waits for, or a mere confirmation.
func (r *reader) isFor(g *relief.Guest) bool {
	switch l := &r.line; {
	case r.bad != nil:
		return false
	case l.Kind == wire.PeerDrain, l.Kind == wire.PeerDrained:
		return true
	default:
		typ := string(l.Message.Type)
		return l.Kind == wire.PeerMessage && string(l.Message.RequestID) == g.For && wire.CanRespond(typ) && !wire.IsChunk(typ)
	}
}

// take takes the seat for a guest, if it is vacant.
func (s *seat) take() *reader {
	if s.closed.Load() > 0 {
		s.closed.Add(-1)
		return nil
	}
	if !s.wanted.Load() {
		s.wanted.Store(true)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.vacant {
		return nil
	}
	s.vacant = false
	s.watch.Off()
	return s.reader
}

// leave is the end of a guest. more says that there is something for the reader to do.
func (s *seat) leave(more bool) {
	s.mu.Lock()
	s.vacant = true
	s.left.Broadcast()
	s.mu.Unlock()
	s.watch.On()
	if more {
		s.watch.Wake()
	}
}

// share lets guests have the seat from now on, if there are any, and the peer is on a socket.
func (r *reader) share() {
	s := &r.seat
	if s.watch != nil || !s.wanted.Load() {
		return
	}
	c := r.move.socket()
	if c == nil {
		return
	}
	w, err := c.share()
	if err != nil { // there are no descriptors left, say
		s.closed.Store(math.MaxInt32)
		s.wanted.Store(false)
		return
	}
	s.watch = w
}

// rest leaves the seat vacant until there is something to read, or the socket has ended.
func (r *reader) rest() {
	s := &r.seat
	s.mu.Lock()
	s.vacant, s.reader = true, r
	s.mu.Unlock()
	_ = s.watch.Wait() // fails if the channel was closed: so do reads
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.vacant {
		s.left.Wait()
	}
	s.vacant = false
}
