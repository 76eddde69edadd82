package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// linkQueue is how many bytes may wait for the link's writer before another
	// line has to wait. It bounds what an agent has in flight towards its
	// sidecar, which is why the sidecar can promise to take whatever crosses its
	// `pause`: see crossing.
	linkQueue = 1 << 20
	// linkOverflow is where lines that must not wait are refused. Only a
	// counterpart that no longer reads lets the queue grow this far.
	linkOverflow = 64 << 20
	// linkKeep is the largest buffer kept for reuse: a full queue's, which would
	// have to grow anew for each batch, but not that of one huge message.
	linkKeep = 4 * linkQueue
	// linkRest is for reading what is left on a connection that can no longer be
	// written to. Its end is there already, as a rule.
	linkRest = 10 * time.Second
)

// linkPace is how long after the last one a line counts as a lone one: about
// twice what the change to another goroutine costs.
const linkPace = 50 * time.Microsecond

// errLinkOverflow: a line that must not wait found the queue full.
var errLinkOverflow = errors.New("mesh: the link's queue overflowed")

// A link is one end of the JSON-lines connection between an agent and its
// sidecar, the same on both ends. Any goroutine may add lines, and one serves
// those that come.
//
// Over a socket one goroutine writes (writeLoop), what waits together at once;
// where a line need not wait, the goroutine that adds it does the writer's work.
// In one process there is no connection: the far end takes the lines from where
// they wait (memory.go).
type link struct {
	conn   net.Conn         // nil in memory
	direct func([]byte) int // writes what it can without waiting; nil if conn cannot
	*wire.Reader

	far  *link                // the other end, in memory
	pump atomic.Pointer[pump] // reads what far has, once somebody serves this end

	wake chan struct{} // buffered 1: there is something for writeLoop
	done chan struct{} // closed by close

	mu      sync.Mutex
	closed  bool
	why     error         // of closed, for a reader who cannot see it; valid after done
	waiting []byte        // lines
	charges []charge      // who is charged for them
	writing bool          // a batch is being written, or taken by far
	taken   []charge      // for what far has taken
	last    time.Time     // when a line last found the link idle
	room    chan struct{} // closed when the waiting lines are taken; nil if nobody waits for that
	idle    chan struct{} // closed when nothing waits and nothing is being written; the same
}

// An account is charged for the bytes that wait on a link on behalf of one
// peer, so that one peer's messages cannot fill the memory unnoticed.
type account interface {
	charge(n int)  // n bytes were added; called in order of the lines
	release(n int) // n bytes were written or taken, or dropped with the link
}

type charge struct {
	to account
	n  int
}

func newLink(conn net.Conn, limits wire.Limits) *link {
	l := bareLink()
	l.conn = conn
	in := io.Reader(conn)
	if c, ok := conn.(*caller); ok {
		if c.direct != nil {
			l.direct = c.tryWrite
		}
	} else if d := sock.NewDirect(conn); d != nil {
		in, l.direct = d, d.TryWrite
	}
	l.Reader = wire.NewReader(in, limits.MaxLine())
	return l
}

func bareLink() *link {
	return &link{wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// write adds the lines that add appends, and waits under ctx while too much is
// waiting already.
func (l *link) write(ctx context.Context, add func([]byte) []byte) error {
	for {
		room, err := l.tryWrite(add)
		if err != nil || room == nil {
			return err
		}
		if err := l.waitRoom(ctx, room); err != nil {
			return err
		}
	}
}

// tryWrite adds lines if there is room for them, else it returns what tells of
// room. Messages are written with it: whoever had to wait for room must look
// again whether the peer has been paused meanwhile, or all who waited would send
// after the pause.
func (l *link) tryWrite(add func([]byte) []byte) (room <-chan struct{}, err error) {
	defer l.wrote()
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nil, ErrSidecarLost
	case len(l.waiting) >= linkQueue:
		return awaited(&l.room), nil
	}
	l.append(nil, add)
	return nil, nil
}

// waitRoom waits for room, the end of the link, or the end of ctx, which is an
// error.
func (l *link) waitRoom(ctx context.Context, room <-chan struct{}) error {
	select {
	case <-room:
	case <-l.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// writeNow adds lines without ever waiting: control lines, and events whose
// volume the account keeps in check. to may be nil.
func (l *link) writeNow(to account, add func([]byte) []byte) error {
	defer l.wrote()
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return ErrSidecarLost
	case to == nil && len(l.waiting) > linkOverflow:
		return errLinkOverflow
	}
	l.append(to, add)
	return nil
}

// wrote has the far end take what was written, if it is in this process.
func (l *link) wrote() {
	if l.far != nil {
		l.far.look()
	}
}

// serve has take called for each line, or for what was wrong with one, in order
// and one at a time, until take returns false: for an error that is no
// *wire.Error it must. In memory it is whoever wrote the line who calls take,
// unless waits says that it may wait.
func (l *link) serve(waits func() bool, take func(line []byte, err error) bool) {
	if l.far != nil {
		p := newPump(l, waits, take)
		l.pump.Store(p)
		p.wrote() // it may have come before
		p.work()
		return
	}
	for take(l.next()) {
	}
}

// next reads a line. If there is no end to what is left after stopWriting, that
// is no reason: the one for which it was called is.
func (l *link) next() ([]byte, error) {
	line, err := l.ReadLine()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		select {
		case <-l.done:
			err = l.why
		default:
		}
	}
	return line, err
}

// append is called with mu held.
func (l *link) append(to account, add func([]byte) []byte) {
	before := len(l.waiting)
	lone := before == 0 && !l.writing
	l.waiting = add(l.waiting)
	if lone && l.passOn() {
		return // it waits for nobody, and is nobody's charge
	}
	if to != nil {
		n := len(l.waiting) - before
		to.charge(n)
		if last := len(l.charges) - 1; last >= 0 && l.charges[last].to == to {
			l.charges[last].n += n
		} else {
			l.charges = append(l.charges, charge{to, n})
		}
	}
	if lone {
		l.wakeUp()
	}
}

// passOn does what needs no other goroutine for a line that found the link idle,
// and reports whether that is all. Called with mu held.
func (l *link) passOn() bool {
	if l.far != nil {
		return true // wrote follows
	}
	if !l.mayWrite() {
		return false
	}
	l.waiting = l.waiting[:copy(l.waiting, l.waiting[l.direct(l.waiting):])]
	return len(l.waiting) == 0
}

func (l *link) wakeUp() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// mayWrite tells whether whoever adds a line to an idle link is to write it,
// which spares the change to the writer's goroutine. When lines follow each
// other closely the writer does it, since it can write several at once. Called
// with mu held.
func (l *link) mayWrite() bool {
	if l.direct == nil {
		return false
	}
	now := time.Now()
	idle := now.Sub(l.last)
	l.last = now
	return idle >= linkPace
}

// writeLoop writes until the link is closed or the connection fails; then it
// closes the link. Whatever waits goes out in one write: many small lines cost
// one system call, and a lone one is never delayed.
func (l *link) writeLoop() {
	if l.far != nil {
		l.settleLoop()
		return
	}
	var batch []byte
	var charges []charge
	for open := true; open; {
		select {
		case <-l.wake:
		case <-l.done:
		}
		for {
			if batch, charges, open = l.take(batch, charges); len(batch) == 0 {
				break
			}
			if _, err := l.conn.Write(batch); err != nil {
				l.stopWriting(err)
			}
			settle(charges)
		}
	}
	l.drop()
}

// take swaps the waiting lines for the writer's empty buffers. open is false
// when the link is closed.
func (l *link) take(batch []byte, charges []charge) (_ []byte, _ []charge, open bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		l.writing = false
		return nil, nil, false
	}
	clear(charges)
	charges, l.charges = l.charges, charges[:0]
	return l.swap(batch), charges, true
}

// swap takes the waiting lines, and gives batch to be filled instead. Called
// with mu held.
func (l *link) swap(batch []byte) []byte {
	if cap(batch) > linkKeep {
		batch = nil
	}
	batch, l.waiting = l.waiting, batch[:0]
	l.writing = len(batch) > 0
	announce(&l.room)
	if !l.writing {
		announce(&l.idle)
	}
	return batch
}

// drop forgets what waits on a link that has been closed.
func (l *link) drop() {
	l.mu.Lock()
	dropped := append(l.taken, l.charges...)
	l.taken, l.charges, l.waiting = nil, nil, nil
	l.mu.Unlock()
	settle(dropped)
}

// awaited returns what announce will close, for those who wait.
func awaited(c *chan struct{}) <-chan struct{} {
	if *c == nil {
		*c = make(chan struct{})
	}
	return *c
}

func announce(c *chan struct{}) {
	if *c != nil {
		close(*c)
		*c = nil
	}
}

func settle(charges []charge) {
	for _, c := range charges {
		c.to.release(c.n)
	}
}

// flush waits until everything added so far has been handed to the connection;
// in memory, until the far end has dealt with it.
func (l *link) flush(ctx context.Context) error {
	l.mu.Lock()
	if !l.writing && len(l.waiting) == 0 {
		l.mu.Unlock()
		return nil
	}
	idle := awaited(&l.idle)
	l.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-l.done:
		return ErrSidecarLost
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stopWriting is for a connection that takes no more. What the counterpart wrote
// before it left is still read, and so is the way it ended.
func (l *link) stopWriting(err error) {
	l.end(fmt.Errorf("writing: %w", err))
	_ = l.conn.SetReadDeadline(time.Now().Add(linkRest))
}

// close ends both directions at once: what waits is dropped, so flush before.
// Safe to call at any time, repeatedly.
func (l *link) close() {
	ended := l.end(net.ErrClosed)
	if l.far == nil {
		_ = l.conn.Close() // the counterpart sees EOF; there is nobody to tell more
		return
	}
	if ended {
		l.far.end(io.EOF)
		l.look() // both readers see it
		l.far.look()
	}
}

// end makes this end a closed one, and reports whether it was open.
func (l *link) end(why error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.closed, l.why = true, why
	close(l.done)
	return true
}
