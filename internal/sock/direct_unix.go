//go:build unix

package sock

import (
	"io"
	"net"
	"syscall"

	"github.com/chatixia-ai/mesh/internal/nowait"
)

// A Direct reads from a connection, and writes what needs no waiting, by the system calls of package nowait.
type Direct struct {
	raw       syscall.RawConn
	in, out   call
	get, give func(fd uintptr) bool // one closure for all calls, rather than one for each
}

// call is the one that is under way.
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
	d := &Direct{raw: raw}
	d.get = func(fd uintptr) bool {
		d.in.n, d.in.err = nowait.Read(fd, d.in.b)
		return d.in.err != nowait.ErrWait
	}
	d.give = func(fd uintptr) bool {
		d.out.n, d.out.err = nowait.Write(fd, d.out.b)
		return true // do not wait
	}
	return d
}

// Read is Read of the connection. It must not be called concurrently.
func (d *Direct) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	d.in.b = b
	err := d.raw.Read(d.get)
	d.in.b = nil
	switch {
	case err != nil:
		return 0, err
	case d.in.n == 0 && d.in.err == nil:
		return 0, io.EOF
	}
	return d.in.n, d.in.err
}

// TryWrite writes as much of b as the connection takes without waiting, and returns how much that was: 0 if it
// is full, or broken, which the next ordinary write reports. It must not be called concurrently, nor while a
// Write is under way.
//
// A net.Conn has no such call: its Write waits, and a deadline in the past fails before it tries.
func (d *Direct) TryWrite(b []byte) int {
	d.out = call{b: b}
	_ = d.raw.Write(d.give)
	d.out.b = nil
	return d.out.n
}
