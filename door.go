package mesh

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/chatixia-ai/mesh/internal/sidecar"
	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// Streams come from the sidecar by themselves where it runs in this process, else each by
// a connection of its own to the sidecar's socket.

// stream opens or takes a stream. The error is a *wire.Error, ErrSidecarLost or the cause of ctx.
func (c *ipc) stream(ctx context.Context, r wire.Stream) (sidecar.Stream, error) {
	r.Secret = c.secret
	if door := c.side.door; door != nil {
		return door.Stream(ctx, r)
	}
	if r.Stream == "" {
		r.Stream = "a" + c.m.ids.next() // the sidecar's are numbers
	}
	s := &socketStream{ipc: c, id: r.Stream, ended: make(chan struct{}), stopped: make(chan struct{})}
	c.streamsMu.Lock()
	c.streams[r.Stream] = s
	c.streamsMu.Unlock()
	if err := s.open(ctx, r); err != nil {
		c.forgetStream(s)
		if s.asked { // the sidecar may have opened it
			s.tellEnd(wire.CodeStreamReset)
		}
		return nil, err
	}
	return s, nil
}

// streamEnded notes how one direction of a stream has ended, for who reads or writes it.
func (c *ipc) streamEnded(t wire.Type, w wire.Stream) {
	c.streamsMu.Lock()
	defer c.streamsMu.Unlock()
	s := c.streams[w.Stream]
	if s == nil {
		return
	}
	over, why := s.ended, &s.why
	if t == wire.TypeStreamStop {
		over, why = s.stopped, &s.whyStopped
	}
	select {
	case <-over:
		return
	default:
	}
	if w.Code != "" {
		*why = &wire.Error{Code: w.Code, Text: w.Message}
	}
	close(over)
}

// forgetStream has the sidecar's word about a stream wait for nobody.
func (c *ipc) forgetStream(s *socketStream) {
	c.streamsMu.Lock()
	defer c.streamsMu.Unlock()
	delete(c.streams, s.id)
}

// A socketStream is a stream over a connection to the sidecar's socket. Its end of file does not say how
// it has ended, nor does the failure of a write say why; the sidecar says so on the link.
type socketStream struct {
	*net.UnixConn
	in  *bufio.Reader
	ipc *ipc
	id  string

	ended      chan struct{} // what arrives has ended
	why        error         // valid after ended; nil for a clean end
	stopped    chan struct{} // what is written is of no use
	whyStopped error         // valid after stopped
	closed     atomic.Bool
	halfClosed atomic.Bool // by us
	asked      bool        // the sidecar was asked for it
}

// open connects, and says which stream it is to be.
func (s *socketStream) open(ctx context.Context, r wire.Stream) (err error) {
	conn, err := sock.Dial(ctx, s.ipc.side.socket)
	if err != nil {
		if isTimeout(err) { // of ctx, but by a clock of its own
			<-ctx.Done()
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w: %w", ErrSidecarLost, err)
	}
	s.UnixConn = conn.(*net.UnixConn)
	stop := context.AfterFunc(ctx, func() { _ = s.UnixConn.SetDeadline(time.Unix(1, 0)) })
	err = s.ask(r)
	switch {
	case !stop():
		err = context.Cause(ctx)
	case err != nil && wire.BadLine(err) == nil:
		err = fmt.Errorf("%w: %w", ErrSidecarLost, err)
	}
	if err != nil {
		_ = s.UnixConn.Close()
	}
	return err
}

func (s *socketStream) ask(r wire.Stream) error {
	s.asked = true
	if _, err := s.UnixConn.Write(wire.AppendStream(nil, wire.TypeStream, r)); err != nil {
		return err
	}
	s.in = bufio.NewReaderSize(s.UnixConn, 4<<10)
	raw, err := s.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	var line wire.Line
	if err := wire.ParseEvent(raw, wire.Limits{}, &line); err != nil {
		return err
	}
	switch line.Type {
	case wire.TypeStream:
		return nil
	case wire.TypeError:
		e, err := wire.DecodeErrorEvent(line.Payload)
		if err != nil {
			return err
		}
		return &wire.Error{Code: e.Code, Text: e.Message}
	}
	return errors.New("the sidecar's first line is not about the stream")
}

// Read reads what came with the first line, and then the connection.
func (s *socketStream) Read(b []byte) (n int, err error) {
	if s.in.Buffered() > 0 {
		return s.in.Read(b)
	}
	n, err = s.UnixConn.Read(b)
	return n, s.readEnd(err)
}

// Write fails with the reason for which the stream has ended, if it has.
func (s *socketStream) Write(b []byte) (int, error) {
	n, err := s.UnixConn.Write(b)
	return n, s.writeEnd(err)
}

// readEnd returns the error of a read.
func (s *socketStream) readEnd(err error) error {
	if err == nil || isTimeout(err) || errors.Is(err, net.ErrClosed) {
		return err
	}
	select {
	case <-s.ended:
	case <-s.ipc.ended:
		return ErrSidecarLost
	}
	if s.why != nil {
		return s.why
	}
	return io.EOF
}

// CloseWrite ends what is written. Writes that follow, or are under way, fail.
func (s *socketStream) CloseWrite() error {
	s.halfClosed.Store(true)
	_ = s.UnixConn.SetWriteDeadline(time.Unix(1, 0)) // which ends those that wait for room
	return s.UnixConn.CloseWrite()
}

// stopPatience bounds how long the sidecar's word takes why writes fail, which it gives before they do.
const stopPatience = 10 * time.Second

// writeEnd returns the error of a write.
func (s *socketStream) writeEnd(err error) error {
	switch {
	case err == nil:
		return nil
	case s.halfClosed.Load():
		return net.ErrClosed
	case isTimeout(err) || errors.Is(err, net.ErrClosed):
		return err
	}
	late := time.NewTimer(stopPatience)
	defer late.Stop()
	for ended := s.ended; ; {
		select {
		case <-s.stopped:
			return s.whyStopped
		case <-s.ipc.ended:
			return ErrSidecarLost
		case <-ended:
			if s.why != nil {
				return s.why
			}
			ended = nil // what arrives has ended cleanly, which is another matter
		case <-late.C:
			return &wire.Error{Code: wire.CodeStreamReset, Text: "the sidecar has closed the stream"}
		}
	}
}

// failed reports whether the sidecar has said that the stream ended with an error, or is gone.
func (s *socketStream) failed() bool {
	select {
	case <-s.ended:
		return s.why != nil
	case <-s.ipc.ended:
		return true
	default:
		return false
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// Reset ends it at once; the code is the sidecar's to choose.
func (s *socketStream) Reset(uint32) { _ = s.close(wire.CodeStreamReset) }

// Close implements net.Conn.
func (s *socketStream) Close() error { return s.close("") }

func (s *socketStream) close(why wire.Code) error {
	if s.closed.Swap(true) {
		return net.ErrClosed
	}
	s.ipc.forgetStream(s)
	s.tellEnd(why)
	return s.UnixConn.Close()
}

// tellEnd tells the sidecar that the stream is closed, or for a reason given up.
func (s *socketStream) tellEnd(why wire.Code) {
	_ = s.ipc.writeNow(func(b []byte) []byte { // an error means that the link is gone, and the stream with it
		return wire.AppendStream(b, wire.TypeStreamEnd, wire.Stream{Stream: s.id, Code: why})
	})
}
