package mesh

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// memoryBuffer is how many bytes a memoryConn holds in each direction, about
// what a socket does. A longer write passes in parts.
const memoryBuffer = 256 << 10

// A memoryConn is one end of a connection within this process. net.Pipe would
// do, but it holds nothing: each write waits for its reader, which costs two
// changes of goroutine for a line.
//
// There are no deadlines: nobody needs them on this side of a host.
type memoryConn struct {
	in, out *memoryPipe
}

// attach has p read what arrives. From now on Read does not wait, but returns
// wire.ErrNothingYet.
func (c *memoryConn) attach(p *pump) {
	c.in.reader.Store(p)
	p.wrote() // it may have come before
}

// wrote tells the far end's pump that there is something for it.
func (c *memoryConn) wrote() { c.out.wrote() }

func newMemoryConns() (a, b *memoryConn) {
	x, y := newMemoryPipe(), newMemoryPipe()
	return &memoryConn{in: x, out: y}, &memoryConn{in: y, out: x}
}

// Read waits for bytes, or returns io.EOF once what the closed far end had
// written is read.
func (c *memoryConn) Read(b []byte) (int, error) { return c.in.read(b) }

// Write waits for room.
func (c *memoryConn) Write(b []byte) (int, error) { return c.out.write(b) }

// tryWrite takes as much of b as there is room for, and never waits.
func (c *memoryConn) tryWrite(b []byte) int { return c.out.tryWrite(b) }

// Close ends both directions: the far end may still read what was written.
func (c *memoryConn) Close() error {
	c.in.closeReader()
	c.out.closeWriter()
	c.in.wrote()
	c.out.wrote()
	return nil
}

func (c *memoryConn) LocalAddr() net.Addr                { return memoryAddr{} }
func (c *memoryConn) RemoteAddr() net.Addr               { return memoryAddr{} }
func (c *memoryConn) SetDeadline(time.Time) error        { return os.ErrNoDeadline }
func (c *memoryConn) SetReadDeadline(time.Time) error    { return os.ErrNoDeadline }
func (c *memoryConn) SetWriteDeadline(t time.Time) error { return os.ErrNoDeadline }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "memory" }

// A memoryPipe is one direction: a bounded buffer.
type memoryPipe struct {
	mu       sync.Mutex
	changed  sync.Cond
	data     []byte // data[from:] waits for the reader
	from     int
	noWriter bool
	noReader bool

	reader atomic.Pointer[pump] // nil if somebody waits in read
}

func (p *memoryPipe) wrote() {
	if r := p.reader.Load(); r != nil {
		r.wrote()
	}
}

func newMemoryPipe() *memoryPipe {
	p := new(memoryPipe)
	p.changed.L = &p.mu
	return p
}

func (p *memoryPipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.from == len(p.data) {
		switch {
		case p.noReader:
			return 0, net.ErrClosed
		case p.noWriter:
			return 0, io.EOF
		case p.reader.Load() != nil:
			return 0, wire.ErrNothingYet
		}
		p.changed.Wait()
	}
	n := copy(b, p.data[p.from:])
	p.from += n
	if p.from == len(p.data) {
		p.data, p.from = p.data[:0], 0
	}
	p.changed.Broadcast()
	return n, nil
}

func (p *memoryPipe) tryWrite(b []byte) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.noReader || p.noWriter {
		return 0
	}
	n := min(len(b), p.room())
	if n > 0 {
		p.add(b[:n])
	}
	return n
}

func (p *memoryPipe) write(b []byte) (written int, err error) {
	for written < len(b) && err == nil {
		var n int
		n, err = p.writePart(b[written:])
		written += n
		p.wrote()
	}
	return written, err
}

// writePart waits for room and writes as much as there is.
func (p *memoryPipe) writePart(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.room() == 0 && !p.noReader && !p.noWriter {
		p.changed.Wait()
	}
	switch {
	case p.noWriter:
		return 0, net.ErrClosed
	case p.noReader:
		return 0, io.ErrClosedPipe
	}
	n := min(len(b), p.room())
	p.add(b[:n])
	return n, nil
}

func (p *memoryPipe) room() int { return memoryBuffer - (len(p.data) - p.from) }

func (p *memoryPipe) add(b []byte) {
	if p.from > 0 && len(p.data)+len(b) > cap(p.data) {
		p.data, p.from = p.data[:copy(p.data, p.data[p.from:])], 0
	}
	p.data = append(p.data, b...)
	p.changed.Broadcast()
}

func (p *memoryPipe) closeWriter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.noWriter = true
	p.changed.Broadcast()
}

// closeReader also drops what nobody will read.
func (p *memoryPipe) closeReader() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.noReader, p.data, p.from = true, nil, 0
	p.changed.Broadcast()
}
