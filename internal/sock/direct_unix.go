//go:build unix

package sock

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/chatixia-ai/mesh/internal/nowait"
)

// Direct reads from a connection, and writes to it without blocking, by the system calls of package nowait.
type Direct struct {
	// Idle, if it is set, is called when Read finds nothing to read, and returns the buffer to read into instead.
	Idle func() []byte
	// Later says that Read does not block: it returns [nowait.ErrWait] if there is nothing to read.
	Later bool
	// Until, if it is set, has Read block all the same, but for no longer than until that is over: see Interrupt.
	Until interface{ Over() bool }

	conn      net.Conn
	blocks    atomic.Bool // in Read, under Until
	raw       syscall.RawConn
	in, out   call
	get, give func(fd uintptr) bool // made once, because a closure for each call would be an allocation
}

// call holds the arguments and results of the system call in progress.
type call struct {
	b   []byte
	n   int
	err error
}

// NewDirect returns nil for a connection without a file descriptor.
func NewDirect(c net.Conn) *Direct {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	d := &Direct{conn: c, raw: raw}
	d.get = func(fd uintptr) bool {
		d.in.n, d.in.err = nowait.Read(fd, d.in.b)
		wait := d.in.err == nowait.ErrWait
		if wait && d.Idle != nil {
			d.in.b = d.Idle()
		}
		return !wait || !d.mayBlock()
	}
	d.give = func(fd uintptr) bool {
		d.out.n, d.out.err = nowait.Write(fd, d.out.b)
		return true // do not block until there is room
	}
	return d
}

// mayBlock reports whether Read is to block, since there is nothing to read.
func (d *Direct) mayBlock() bool {
	if d.Until == nil {
		return !d.Later
	}
	d.blocks.Store(true) // first: either Interrupt sees it, or we see why it was called
	return !d.Until.Over()
}

// Interrupt has a Read that blocks look whether what it is to block for is over.
func (d *Direct) Interrupt() {
	if d.blocks.Load() {
		_ = d.conn.SetReadDeadline(time.Unix(1, 0)) // fails if the connection is closed: then Read does not block
	}
}

// Read reads like Read of the connection. It must not be called concurrently.
func (d *Direct) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if d.Until != nil && d.Until.Over() { // however much there is to read
		return 0, nowait.ErrWait
	}
	d.in.b = b
	err := d.raw.Read(d.get)
	d.in.b = nil
	d.blocks.Store(false)
	switch {
	case d.Later && errors.Is(err, os.ErrDeadlineExceeded): // by Interrupt, which may also come too late
		if err = d.conn.SetReadDeadline(time.Time{}); err == nil {
			err = nowait.ErrWait
		}
		return 0, err
	case err != nil:
		return 0, err
	case d.in.n == 0 && d.in.err == nil:
		return 0, io.EOF
	}
	return d.in.n, d.in.err
}

// TryWrite writes as much of b as the connection takes without blocking, and returns the number of bytes. It
// returns 0 if the connection is full or broken; the next ordinary Write reports which. It must not be called
// concurrently, nor during a Write.
//
// A net.Conn has no such method: its Write blocks, and with a deadline in the past it fails before it tries.
func (d *Direct) TryWrite(b []byte) int {
	d.out = call{b: b}
	_ = d.raw.Write(d.give)
	d.out.b = nil
	return d.out.n
}
