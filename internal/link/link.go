// Package link is one end of the JSON-lines connection between an agent and its sidecar, the same type
// on both ends, over a socket or in memory.
//
// Order of locks: a link's mutex is held while the callers' append functions and [Account.Charge] run,
// so whatever lock those take comes after it. The mutexes of the two ends of a pipe are never held
// together, and no line is taken (see [Link.Serve]) with either held.
package link

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/chatixia-ai/mesh/internal/relief"
	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// QueueSize is how many bytes may wait in a link's queue before Write blocks. It bounds what an agent
	// has in flight towards its sidecar, which is why the sidecar can promise to take whatever crosses
	// its `pause`.
	QueueSize = 1 << 20
	// overflow is where WriteNow refuses lines. Only a counterpart that no longer reads lets the queue
	// grow this far.
	overflow = 64 << 20
	// sealSize is where a batch takes no more lines and the next one begins. What waits is thus in pieces, which are
	// freed as they are written, instead of in one that would be copied whenever it grows.
	sealSize = QueueSize
	// batchSize is that of the buffers for batches behind others, which need not grow unless a long line is their last.
	batchSize = sealSize + sealSize/8
	// keep is the largest buffer that a link keeps for reuse: that of a full queue, which would have to grow anew for
	// each batch, but not that of one huge message.
	keep = 2 * QueueSize
	// chargeCost is what each entry in a list of charges adds to its account: its memory, and that of the list.
	chargeCost = 64
)

var (
	// ErrClosed means that the link has ended: this end was closed, or the connection was lost.
	ErrClosed = errors.New("link closed")
	// ErrOverflow means that WriteNow found the queue full.
	ErrOverflow = errors.New("link queue overflowed: the other end does not read")
)

// A Link is one end of a connection of lines. Any goroutine may add lines, one takes those that arrive
// (Serve), and one runs Run.
type Link struct {
	carrier carrier
	wake    chan struct{} // buffered 1: there is something for Run
	done    chan struct{} // closed by end

	mu      sync.Mutex
	closed  bool
	why     error         // the link ended, for a reader that cannot see it; valid after done
	waiting batch         // lines, behind those in sealed
	sealed  []batch       // full ones, in order
	size    int           // bytes in sealed and waiting
	writing bool          // a batch is being written, or taken by the other end
	room    chan struct{} // closed when the waiting lines are taken; nil if no caller waits for that
	idle    chan struct{} // closed when nothing waits and nothing is being written; nil likewise
}

// A carrier brings the lines of a link to its other end: a socket, or the memory of this process.
type carrier interface {
	// passLocked does what it can, without blocking, for lines that found the link idle, and reports
	// whether none of them waits. For those that do it wakes run, or leaves them to added. It is called with the link's mu held.
	passLocked() bool
	// added is called after lines were added, without locks. inline says that the caller can do what they call for; that is what it
	// returns, nil if nothing is left to do.
	added(inline bool) (work func())
	// leave is Link.Leave.
	leave(work func()) bool
	// run does what is left to do for waiting lines until the link has ended.
	run()
	// serve is Link.Serve.
	serve(take Take, w *relief.Watch)
	// close ends the connection. first says that the link was open until now.
	close(first bool)
}

// Take is called for each line that arrives, or with what was wrong with it. The line is valid until
// Take returns.
type Take func(line []byte, err error) (more bool)

// An Account is charged for the memory that lines take which wait on a link on behalf of one peer, so that one peer
// cannot fill it unnoticed.
type Account interface {
	Charge(n int)  // n bytes are taken; called in order of the lines, with the link's lock held
	Release(n int) // n bytes were written or taken, or dropped with the link
}

// A batch is lines that are written together, and who is charged for them.
type batch struct {
	lines   []byte
	charges []charge
}

// buffers are those of batchSize bytes that no link has.
var buffers = sync.Pool{New: func() any { return new([batchSize]byte) }}

type charge struct {
	to Account
	n  int
}

func newLink() *Link {
	return &Link{wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// Run writes until the link has ended. Whatever waits goes out in one write: many small lines cost one
// system call, and a lone one is never delayed.
func (l *Link) Run() { l.carrier.run() }

// Leave has work, which may take long, be done by the goroutine that has called take, once that has returned, and reports whether it will. It
// won't if more lines are there already, or if the goroutine has other things to do. Only take may call it.
func (l *Link) Leave(work func()) bool { return l.carrier.leave(work) }

// Serve calls take for each line, or for what was wrong with one, in order and one at a time, until take
// returns false, which it must for an error that is no *wire.Error. In memory the goroutine that wrote a
// lone line calls take, so take must not block.
func (l *Link) Serve(take Take) {
	w := new(relief.Watch)
	l.carrier.serve(take, w)
	w.Close()
}

// Write adds the lines that add appends. It blocks, under ctx, while QueueSize bytes or more are waiting
// already. The error is ErrClosed or the cause of ctx.
func (l *Link) Write(ctx context.Context, add func([]byte) []byte) error {
	for {
		room, err := l.TryWrite(add)
		if err != nil || room == nil {
			return err
		}
		if err := l.WaitRoom(ctx, room); err != nil {
			return err
		}
	}
}

// TryWrite adds lines if there is room for them; else it returns a channel that is closed when there may
// be. Messages are written with it: a caller that had to wait for room must check again whether the peer
// has been paused meanwhile, or all callers that waited would send after the pause. The error is
// ErrClosed.
func (l *Link) TryWrite(add func([]byte) []byte) (room <-chan struct{}, err error) {
	defer l.added()
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nil, ErrClosed
	case l.size >= QueueSize:
		return awaited(&l.room), nil
	}
	l.appendLocked(nil, add)
	return nil, nil
}

// WaitRoom blocks until room, from TryWrite, is closed or the link ends, and returns nil; or until ctx
// ends, and returns its cause.
func (l *Link) WaitRoom(ctx context.Context, room <-chan struct{}) error {
	select {
	case <-room:
	case <-l.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// WriteNow adds lines without ever blocking: control lines, and events whose volume the account to keeps
// in check. to may be nil. The error is ErrClosed or, without an account, ErrOverflow.
func (l *Link) WriteNow(to Account, add func([]byte) []byte) error {
	defer l.added()
	return l.append(to, add)
}

// WriteNowInline is WriteNow for a caller that can do what the line calls for at the other end, if that is in this process: work, if it is
// not nil, which may take long and wants no locks held.
func (l *Link) WriteNowInline(to Account, add func([]byte) []byte) (work func(), err error) {
	err = l.append(to, add)
	return l.carrier.added(true), err
}

// added has added lines taken, if that is for the goroutine to do that has added them.
func (l *Link) added() { _ = l.carrier.added(false) }

func (l *Link) append(to Account, add func([]byte) []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return ErrClosed
	case to == nil && l.size > overflow:
		return ErrOverflow
	}
	l.appendLocked(to, add)
	return nil
}

// appendLocked adds lines, and charges the account for those that wait.
func (l *Link) appendLocked(to Account, add func([]byte) []byte) {
	lone := l.size == 0 && !l.writing
	if len(l.waiting.lines) >= sealSize {
		l.sealed = append(l.sealed, l.waiting)
		l.waiting = batch{lines: buffers.Get().(*[batchSize]byte)[:0]}
	}
	before := len(l.waiting.lines)
	l.waiting.lines = add(l.waiting.lines)
	n := len(l.waiting.lines) - before
	l.size += n
	if n == 0 || lone && l.carrier.passLocked() {
		return // it does not wait, so no account is charged
	}
	if to != nil {
		l.chargeLocked(to, n)
	}
}

// chargeLocked charges an account for n bytes of the waiting batch.
func (l *Link) chargeLocked(to Account, n int) {
	w := &l.waiting
	if last := len(w.charges) - 1; last >= 0 && w.charges[last].to == to {
		w.charges[last].n += n
	} else {
		n += chargeCost
		w.charges = append(w.charges, charge{to, n})
	}
	to.Charge(n)
}

func (l *Link) wakeUp() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// takeLocked takes the first batch of the waiting lines, and leaves the memory of used for later ones.
func (l *Link) takeLocked(used batch) (b batch) {
	if cap(used.lines) > keep {
		used.lines = nil
	}
	clear(used.charges)
	used.lines, used.charges = used.lines[:0], used.charges[:0]
	switch {
	case len(l.sealed) == 0:
		b, l.waiting = l.waiting, used
		l.sealed = nil
	default:
		b, l.sealed[0] = l.sealed[0], batch{}
		l.sealed = l.sealed[1:]
		if cap(l.waiting.lines) == 0 {
			l.waiting = used
		} else if cap(used.lines) == batchSize {
			buffers.Put((*[batchSize]byte)(used.lines[:batchSize]))
		}
	}
	l.size -= len(b.lines)
	l.writing = len(b.lines) > 0
	announce(&l.room)
	if !l.writing {
		announce(&l.idle)
	}
	return b
}

// drop forgets what waits on a link that has ended.
func (l *Link) drop() {
	l.mu.Lock()
	dropped := append(l.sealed, l.waiting)
	l.sealed, l.waiting, l.size = nil, batch{}, 0
	l.mu.Unlock()
	for _, b := range dropped {
		settle(b.charges)
	}
}

// settle releases charges. It is called without locks, since accounts have locks of their own.
func settle(charges []charge) {
	for _, c := range charges {
		c.to.Release(c.n)
	}
}

// awaited returns a channel that announce will close.
func awaited(c *chan struct{}) <-chan struct{} {
	if *c == nil {
		*c = make(chan struct{})
	}
	return *c
}

// announce closes the channel that awaited returned, if any.
func announce(c *chan struct{}) {
	if *c != nil {
		close(*c)
		*c = nil
	}
}

// Flush blocks until everything added so far has been handed to the connection; in memory, until the
// other end has dealt with it. The error is ErrClosed or the cause of ctx.
func (l *Link) Flush(ctx context.Context) error {
	l.mu.Lock()
	if !l.writing && l.size == 0 {
		l.mu.Unlock()
		return nil
	}
	idle := awaited(&l.idle)
	l.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-l.done:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Limits returns the limits for lines that arrive. In memory this process has made them, and has checked what is in them.
func (l *Link) Limits(lim wire.Limits) wire.Limits {
	if _, ok := l.carrier.(*memory); ok {
		return lim.Checked()
	}
	return lim
}

// Received returns how many bytes have arrived over the connection; 0 in memory.
func (l *Link) Received() int64 {
	if s, ok := l.carrier.(*socket); ok {
		return s.received.n.Load()
	}
	return 0
}

// Sent returns how many bytes were written to the connection; 0 in memory.
func (l *Link) Sent() int64 {
	if s, ok := l.carrier.(*socket); ok {
		return s.sent.Load()
	}
	return 0
}

// Close ends both directions at once: what waits is dropped, so Flush first. The other end reads io.EOF.
// It may be called at any time, repeatedly.
func (l *Link) Close() { l.carrier.close(l.end(net.ErrClosed)) }

// end marks this end as closed, and reports whether it was open.
func (l *Link) end(why error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.closed, l.why = true, why
	close(l.done)
	return true
}

// endReason returns why the link has ended, nil while it has not.
func (l *Link) endReason() error {
	select {
	case <-l.done:
		return l.why
	default:
		return nil
	}
}
