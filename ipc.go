package mesh

import (
	"context"
	"errors"
	"net"
	"sync"
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
)

// linkPace is how long after the last one a line counts as a lone one: about
// twice what the change to another goroutine costs.
const linkPace = 50 * time.Microsecond

// errLinkOverflow: a line that must not wait found the queue full.
var errLinkOverflow = errors.New("mesh: the link's queue overflowed")

// A link is one end of the JSON-lines connection between an agent and its
// sidecar, the same on both ends and over every kind of net.Conn. One
// goroutine serves what is read, one writes (writeLoop); any goroutine may add lines,
// and what waits together is written together. Where a line need not wait, the
// goroutine that adds it does the writer's work, and in one process the far
// reader's (pump).
type link struct {
	conn   net.Conn
	direct func([]byte) int // writes what it can without waiting; nil if conn cannot
	paced  bool             // a direct write costs a system call
	memory *memoryConn      // conn, if it is one
	*wire.Reader

	wake chan struct{} // buffered 1: there is something to write
	done chan struct{} // closed by close

	mu      sync.Mutex
	closed  bool
	waiting []byte        // lines for the writer
	charges []charge      // who is charged for them
	writing bool          // the writer holds a batch
	last    time.Time     // when a line last found the link idle, if paced
	room    chan struct{} // closed when the writer takes the waiting lines
	idle    chan struct{} // closed when nothing waits and nothing is being written
}

// An account is charged for the bytes that wait on a link on behalf of one
// peer, so that one peer's messages cannot fill the memory unnoticed.
type account interface {
	charge(n int)  // n bytes were added; called in order of the lines
	release(n int) // n bytes were written, or dropped with the link
}

type charge struct {
	to account
	n  int
}

func newLink(conn net.Conn, limits wire.Limits) *link {
	l := &link{
		conn:   conn,
		Reader: wire.NewReader(conn, limits.MaxLine()),
		wake:   make(chan struct{}, 1),
		done:   make(chan struct{}),
		room:   make(chan struct{}),
		idle:   make(chan struct{}),
	}
	switch c := conn.(type) {
	case *memoryConn:
		l.direct, l.memory = c.tryWrite, c
	case *caller:
		l.direct, l.paced = c.tryWriter(), true
	default:
		l.direct, l.paced = sock.TryWriter(conn), true
	}
	return l
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
		return l.room, nil
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
	if l.memory != nil {
		l.memory.wrote()
	}
}

// serve has take called for each line, or for what was wrong with one, in order
// and one at a time, until take returns false: for an error that is no
// *wire.Error it must. Over an in-memory link it is whoever wrote the line who
// calls take, unless waits says that it may wait.
func (l *link) serve(waits func() bool, take func(line []byte, err error) bool) {
	if l.memory != nil {
		p := newPump(l, waits, take)
		l.memory.attach(p)
		p.work()
		return
	}
	for take(l.ReadLine()) {
	}
}

// append is called with mu held.
func (l *link) append(to account, add func([]byte) []byte) {
	before := len(l.waiting)
	l.waiting = add(l.waiting)
	if before == 0 && !l.writing && l.mayWrite() {
		// What is written waits for nobody, and is nobody's charge.
		l.waiting = l.waiting[:copy(l.waiting, l.waiting[l.direct(l.waiting):])]
		if len(l.waiting) == 0 {
			return
		}
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
	if before == 0 && !l.writing {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// mayWrite tells whether whoever adds a line to an idle link is to write it,
// which spares the change to the writer's goroutine. When lines follow each
// other closely the writer does it, since it can write several at once. Called
// with mu held.
func (l *link) mayWrite() bool {
	if l.direct == nil || !l.paced {
		return l.direct != nil
	}
	now := time.Now()
	idle := now.Sub(l.last)
	l.last = now
	return idle >= linkPace
}

// writeLoop writes until the link is closed or the connection fails; then it
// closes the link. Whatever waits goes out in one write: many small lines cost
// one system call, and a lone one is never delayed.
func (l *link) writeLoop() error {
	var batch []byte
	var charges []charge
	var err error
	for err == nil {
		select {
		case <-l.wake:
		case <-l.done:
		}
		for err == nil {
			if batch, charges, err = l.take(batch, charges); err != nil || len(batch) == 0 {
				break
			}
			_, err = l.conn.Write(batch)
			settle(charges)
			if cap(batch) > linkKeep {
				batch = nil
			}
		}
	}
	l.close()
	l.mu.Lock()
	dropped := l.charges
	l.charges, l.waiting = nil, nil
	l.mu.Unlock()
	settle(dropped)
	return err
}

// take swaps the waiting lines for the writer's empty buffers.
func (l *link) take(batch []byte, charges []charge) ([]byte, []charge, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		l.writing = false
		return nil, nil, net.ErrClosed
	}
	clear(charges)
	batch, l.waiting = l.waiting, batch[:0]
	charges, l.charges = l.charges, charges[:0]
	l.writing = len(batch) > 0
	close(l.room)
	l.room = make(chan struct{})
	if !l.writing {
		close(l.idle)
		l.idle = make(chan struct{})
	}
	return batch, charges, nil
}

func settle(charges []charge) {
	for _, c := range charges {
		c.to.release(c.n)
	}
}

// flush waits until everything added so far has been handed to the connection.
func (l *link) flush(ctx context.Context) error {
	l.mu.Lock()
	idle, busy := l.idle, l.writing || len(l.waiting) > 0
	l.mu.Unlock()
	if !busy {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-l.done:
		return ErrSidecarLost
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close ends both directions at once. Safe to call at any time, repeatedly.
func (l *link) close() {
	l.mu.Lock()
	closed := l.closed
	l.closed = true
	l.mu.Unlock()
	if closed {
		return
	}
	close(l.done)
	_ = l.conn.Close() // the counterpart sees EOF; there is nobody to tell more
}
