package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/chatixia-ai/mesh/internal/sidecar"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// An Addr is one end of a stream.
type Addr struct {
	Peer    string // its id; "" for this agent before it is known
	Service string
}

// Network returns "mesh".
func (a Addr) Network() string { return "mesh" }

// String returns peer:service, as DialContext takes it.
func (a Addr) String() string { return a.Peer + ":" + a.Service }

// A Conn is a stream of bytes to or from a peer: what Dial, DialContext and the
// listeners of Listen return as a [net.Conn]. It has flow control of its own, so that
// one that is not read holds up nothing else. An outage that the link to the peer
// survives (Network.RecoveryTimeout), a stream survives. Its methods may be called from
// any goroutine.
//
// Errors other than io.EOF are a *net.OpError that wraps os.ErrDeadlineExceeded,
// net.ErrClosed after Close, ErrPeerGone, ErrStreamReset if the peer gave the stream
// up, ErrSidecarLost or ErrClosed.
type Conn struct {
	ipc           *ipc
	s             sidecar.Stream
	local, remote Addr
	peer          Peer
}

// Peer returns the peer at the other end, whose link was live when the stream began.
func (c *Conn) Peer() Peer { return c.peer }

// Read returns io.EOF once the peer has called CloseWrite or Close and all that came
// before was read.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.s.Read(b)
	return n, c.failed("read", err)
}

// Write blocks while the peer does not read. When it returns, b is on its way.
func (c *Conn) Write(b []byte) (int, error) {
	n, err := c.s.Write(b)
	return n, c.failed("write", err)
}

// CloseWrite says that nothing more will be written. The other direction goes on.
func (c *Conn) CloseWrite() error { return c.failed("close", c.s.CloseWrite()) }

// Close ends both directions. What was written still arrives; what arrives is dropped.
func (c *Conn) Close() error { return c.failed("close", c.s.Close()) }

// Reset gives the stream up: both directions end at once, and the peer's reads and
// writes fail with ErrStreamReset, so that it does not take what has arrived for all
// there was. What CloseWrite has ended before stays complete.
func (c *Conn) Reset() { c.s.Reset(wire.ResetAbandoned) }

// LocalAddr returns an Addr: this agent's end.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns an Addr: the peer, as its link was authenticated, and the service.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error { return c.failed("set", c.s.SetDeadline(t)) }

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.failed("set", c.s.SetReadDeadline(t)) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.failed("set", c.s.SetWriteDeadline(t)) }

// ReadFrom writes what r reads, until its end. It implements io.ReaderFrom, for io.Copy:
// where there is a socket to the sidecar, bytes of a TCP connection do not pass
// through this process.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	if s, ok := c.s.(*socketStream); ok {
		if tcp, ok := r.(*net.TCPConn); ok {
			n, err := tcp.WriteTo(s.UnixConn)
			if errors.Is(err, syscall.EPIPE) || err != nil && s.halfClosed.Load() { // no error of a read
				err = c.failed("write", s.writeEnd(err))
			}
			return n, err
		}
	}
	return io.Copy(struct{ io.Writer }{c}, r)
}

// WriteTo writes what arrives to w, until its end. It implements io.WriterTo, for
// io.Copy, as ReadFrom does for the other direction.
func (c *Conn) WriteTo(w io.Writer) (n int64, err error) {
	s, socket := c.s.(*socketStream)
	tcp, spliced := w.(*net.TCPConn)
	if !socket || !spliced {
		buf := copyBuffers.Get().(*[copySize]byte)
		defer copyBuffers.Put(buf)
		return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{c}, buf[:])
	}
	if ahead := int64(s.in.Buffered()); ahead > 0 {
		if n, err = io.CopyN(tcp, s.in, ahead); err != nil {
			return n, err
		}
	}
	more, err := tcp.ReadFrom(s.UnixConn)
	n += more
	if err == nil {
		err = s.readEnd(io.EOF)
	} else if !s.failed() {
		return n, err // of w
	}
	if err == io.EOF { //nolint:errorlint // a Read's own
		return n, nil
	}
	return n, c.failed("read", err)
}

const copySize = 64 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copySize]byte) }}

// failed returns the public error for one of the stream.
func (c *Conn) failed(op string, err error) error {
	if err == nil || err == io.EOF { //nolint:errorlint // a Read's own
		return err
	}
	return &net.OpError{Op: op, Net: "mesh", Source: c.local, Addr: c.remote, Err: c.ipc.streamError(err)}
}

// streamError returns the public error for one of a stream.
func (c *ipc) streamError(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	case errors.Is(err, net.ErrClosed):
		return net.ErrClosed
	case c.m.ctx.Err() != nil:
		return c.m.closedError()
	case errors.Is(err, ErrSidecarLost), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, sidecar.ErrEnds): // the one in this process
		return ErrSidecarLost
	}
	bad := sidecar.StreamError(err)
	public := codeError(bad.Code)
	if strings.HasSuffix(public.Error(), bad.Text) { // which says it already
		return public
	}
	return fmt.Errorf("%w: %s", public, bad.Text)
}
