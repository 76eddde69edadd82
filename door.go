package mesh

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
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
	s := &socketStream{ipc: c, id: r.Stream, ended: make(chan struct{})}
	c.streamsMu.Lock()
	c.streams[r.Stream] = s
	c.streamsMu.Unlock()
	err := s.open(ctx, r)
	if err != nil {
		s.forget()
		return nil, err
	}
	return s, nil
}

// streamEnded notes how a stream has ended, for who reads it.
func (c *ipc) streamEnded(w wire.Stream) {
	c.streamsMu.Lock()
	defer c.streamsMu.Unlock()
	if s := c.streams[w.Stream]; s != nil {
		delete(c.streams, w.Stream)
		if w.Code != "" {
			s.why = &wire.Error{Code: w.Code, Text: w.Message}
		}
		close(s.ended)
	}
}

// A socketStream is a stream over a connection to the sidecar's socket. Its end of file does not say how
// it has ended; the sidecar says so on the link.
type socketStream struct {
	net.Conn
	in    *bufio.Reader
	ipc   *ipc
	id    string
	ended chan struct{} // closed once why is valid
	why   error         // nil for a clean end

	once sync.Once
}

// open connects, and says which stream it is to be.
func (s *socketStream) open(ctx context.Context, r wire.Stream) (err error) {
	if s.Conn, err = sock.Dial(ctx, s.ipc.side.socket); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w: %w", ErrSidecarLost, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Conn.SetDeadline(time.Unix(1, 0)) })
	err = s.ask(r)
	switch {
	case !stop():
		err = context.Cause(ctx)
	case err != nil && wire.BadLine(err) == nil:
		err = fmt.Errorf("%w: %w", ErrSidecarLost, err)
	}
	if err != nil {
		_ = s.Conn.Close()
	}
	return err
}

func (s *socketStream) ask(r wire.Stream) error {
	if _, err := s.Conn.Write(wire.AppendStream(nil, wire.TypeStream, r)); err != nil {
		return err
	}
	s.in = bufio.NewReaderSize(s.Conn, 4<<10)
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
	if n, err = s.Conn.Read(b); err == io.EOF { //nolint:errorlint // a Read's own
		err = s.end(err)
	}
	return n, err
}

// Write fails with the reason for which the stream has ended, if it has.
func (s *socketStream) Write(b []byte) (int, error) {
	n, err := s.Conn.Write(b)
	if err != nil && !errors.Is(err, net.ErrClosed) && !isTimeout(err) {
		err = s.end(err)
	}
	return n, err
}

func isTimeout(err error) bool {
	t, ok := err.(net.Error)
	return ok && t.Timeout()
}

// end returns how a stream has ended whose connection the sidecar has ended: clean if cleanly.
func (s *socketStream) end(clean error) error {
	select {
	case <-s.ended:
	case <-s.ipc.ended:
		return ErrSidecarLost
	}
	if s.why != nil {
		return s.why
	}
	return clean
}

// CloseWrite implements sidecar.Stream.
func (s *socketStream) CloseWrite() error { return s.Conn.(*net.UnixConn).CloseWrite() }

// Reset ends it at once; the code is the sidecar's to choose.
func (s *socketStream) Reset(uint32) { _ = s.Close() }

// Close implements net.Conn.
func (s *socketStream) Close() error {
	s.forget()
	return s.Conn.Close()
}

// forget has the sidecar's word about the end wait for nobody.
func (s *socketStream) forget() {
	s.ipc.streamsMu.Lock()
	defer s.ipc.streamsMu.Unlock()
	if s.ipc.streams[s.id] == s {
		delete(s.ipc.streams, s.id)
		close(s.ended)
	}
}
