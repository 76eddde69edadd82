package sidecar

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// streamLine bounds the first line of a connection for a stream, in bytes.
	streamLine = 8 << 10
	// openPatience bounds the opening of a stream.
	openPatience = 35 * time.Second
	// closePatience is how long after the end of a connection the link of an agent that has died may take to end.
	closePatience = 250 * time.Millisecond
)

var errNoStreamLine = errors.New("the first line is not that of a stream")

// stream handles a connection that came after the agent's: it is for one of its streams. known is called once it is known for
// which, or for none.
func (h *Host) stream(ctx context.Context, conn net.Conn, known func()) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer func() { _ = conn.Close() }()
	r, rest, err := readRequest(conn)
	known()
	if err != nil {
		h.noise.Warn().Err(err).Msg("connection refused: a sidecar serves one agent")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	ahead := readAhead(conn, rest, cancel)
	st, err := h.open(ctx, r)
	if err != nil {
		e := StreamError(err)
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			e = &wire.Error{Code: wire.CodeRefused, Text: "the peer has not taken the stream within " + openPatience.String()}
		}
		_, _ = conn.Write(wire.AppendError(nil, wire.ErrorEvent{Code: e.Code, Message: e.Text}))
		_ = conn.Close() // which ends reading ahead
		<-ahead.done
		return
	}
	rel := &relay{
		sidecar: h.door.agent(), id: r.Stream, peer: r.PeerID, conn: conn, stream: st,
		up: make(chan struct{}), told: make(chan struct{}), over: make(chan struct{}),
	}
	rel.run(ahead)
}

// open opens or takes a stream. If there are too many, it waits for those that the agent has closed already: for the agent they are no more.
func (h *Host) open(ctx context.Context, r wire.Stream) (Stream, error) {
	for {
		st, err := h.door.Stream(ctx, r)
		if bad := wire.BadLine(err); bad == nil || bad.Code != wire.CodeTooManyStreams {
			return st, err
		}
		over := h.door.leaving(r.PeerID)
		if over == nil {
			return nil, err
		}
		select {
		case <-over:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// readRequest reads the first line of a connection, and returns what has come behind it.
func readRequest(conn net.Conn) (r wire.Stream, rest []byte, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(streamPatience)); err != nil {
		return r, nil, err
	}
	buf := make([]byte, streamLine)
	n, end := 0, -1
	for ; end < 0; end = bytes.IndexByte(buf[:n], '\n') {
		if n == len(buf) {
			return r, nil, errNoStreamLine
		}
		more, err := conn.Read(buf[n:])
		if n += more; err != nil && more == 0 {
			return r, nil, errNoStreamLine
		}
	}
	var line wire.Line
	if err := wire.ParseEvent(buf[:end], wire.Limits{}, &line); err != nil || line.Type != wire.TypeStream {
		return r, nil, errNoStreamLine
	}
	if r, err = wire.DecodeStream(line.Payload); err != nil {
		return r, nil, err
	}
	return r, buf[end+1 : n], conn.SetReadDeadline(time.Time{})
}

// An ahead is what was read of a connection before its stream was open. Reading tells that the agent has given it up.
type ahead struct {
	done  chan struct{} // closed when the rest is valid
	bytes []byte
	err   error // of reading
}

// readAhead reads on, and calls gone when the connection has ended without a byte more.
func readAhead(conn net.Conn, rest []byte, gone func()) *ahead {
	a := &ahead{done: make(chan struct{}), bytes: rest}
	if len(rest) > 0 {
		close(a.done)
		return a
	}
	go func() { // ends with the connection at the latest; relay or stream waits for it
		defer close(a.done)
		buf := make([]byte, 4<<10)
		n, err := agentReader{conn}.Read(buf)
		if a.bytes, a.err = buf[:n], err; n == 0 {
			gone()
		}
	}()
	return a
}

// An agentReader reads a connection of the agent's. One that was closed with something in it that the agent has not read ends like any other,
// behind what the agent has written.
type agentReader struct{ conn net.Conn }

func (r agentReader) Read(b []byte) (int, error) {
	n, err := r.conn.Read(b)
	if errors.Is(err, syscall.ECONNRESET) {
		err = io.EOF
	}
	return n, err
}

var relayBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

func relayCopy(to io.Writer, from io.Reader) error {
	buf := relayBuffers.Get().(*[32 << 10]byte)
	defer relayBuffers.Put(buf)
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, buf[:])
	return err
}

// A relay brings the bytes of a stream to the agent's connection and back.
type relay struct {
	sidecar *Sidecar
	id      string // "" if the agent has named none
	peer    string // "" if the peer has opened it
	conn    net.Conn
	stream  Stream
	up      chan struct{} // closed when all that the agent has written was passed on
	closed  atomic.Bool   // the agent reads no more
	told    chan struct{} // closed with it
	half    atomic.Bool   // the agent was told that what the peer writes has ended
	over    chan struct{} // closed when both directions have ended
}

// run returns when both directions have ended.
func (r *relay) run(a *ahead) {
	if !r.sidecar.streams.add(r) {
		r.refuse(&wire.Error{Code: wire.CodeInvalidField, Text: "there is a stream " + logs.Cut(r.id)})
		<-a.done
		return
	}
	defer close(r.over)
	defer r.sidecar.streams.remove(r)
	if _, err := r.conn.Write(wire.AppendStream(nil, wire.TypeStream, wire.Stream{Stream: r.id})); err != nil {
		r.stream.Reset(wire.ResetAbandoned)
	}
	go r.copyUp(a)
	r.copyDown()
	<-r.up
	_ = r.stream.Close()
}

func (r *relay) refuse(why *wire.Error) {
	r.stream.Reset(wire.ResetAbandoned)
	_, _ = r.conn.Write(wire.AppendError(nil, wire.ErrorEvent{Code: why.Code, Message: why.Text}))
	_ = r.conn.Close()
}

// copyUp passes on what the agent writes.
func (r *relay) copyUp(a *ahead) {
	defer close(r.up)
	<-a.done
	_, err := r.stream.Write(a.bytes)
	if err == nil && a.err == nil {
		err = relayCopy(r.stream, agentReader{r.conn})
	} else if err == nil && a.err != io.EOF { //nolint:errorlint // a Read's own
		err = a.err
	}
	switch {
	case err != nil:
	case r.complete():
		_ = r.stream.CloseWrite()
		if !r.half.Load() && sock.Hung(r.conn) { // nor does anybody read, whether the agent says so or not
			r.closed.Store(true)
			_ = r.stream.SetReadDeadline(time.Unix(1, 0))
		}
		return
	default:
		r.stream.Reset(wire.ResetAbandoned)
		return
	}
	r.sidecar.tellStream(wire.TypeStreamStop, r.id, err)
	if half, ok := r.conn.(interface{ CloseRead() error }); ok {
		_ = half.CloseRead() // further writes of the agent fail
	}
}

// complete reports, at the end of what the agent has written, whether that is all: an agent that has died, or has given the
// stream up, ends its connections as well.
func (r *relay) complete() bool {
	if !sock.Hung(r.conn) {
		return true // half of it is closed, by an agent that lives
	}
	late := time.NewTimer(closePatience)
	defer late.Stop()
	select {
	case <-r.told:
		return true // or it was reset
	case <-r.sidecar.gone:
		return false
	case <-late.C:
		return true
	}
}

// copyDown passes on what the peer writes, and then tells the agent how it has ended, before its connection does.
func (r *relay) copyDown() {
	buf := relayBuffers.Get().(*[32 << 10]byte)
	defer relayBuffers.Put(buf)
	for {
		n, err := r.stream.Read(buf[:])
		if n > 0 {
			_, err = r.conn.Write(buf[:n])
			if err != nil {
				r.stream.Reset(wire.ResetClosed)
				return
			}
		}
		switch {
		case err == nil:
			continue
		case r.closed.Load():
			return
		}
		r.sidecar.tellStream(wire.TypeStreamEnd, r.id, err)
		if err != io.EOF { //nolint:errorlint // a Read's own
			_ = r.conn.Close()
		} else if half, ok := r.conn.(interface{ CloseWrite() error }); ok {
			r.half.Store(true)
			_ = half.CloseWrite()
		}
		return
	}
}

// leaving reports whether the agent has closed the stream, which is about to end.
func (r *relay) leaving() bool {
	switch {
	case r.closed.Load():
		return true
	case r.half.Load(): // nobody need read what we write
		return sock.Ended(r.conn)
	}
	return sock.Hung(r.conn)
}

// end is called when the agent reads no more of the stream; with a reason, when it has given up what it writes, too.
func (r *relay) end(why wire.Code) {
	if !r.closed.Swap(true) {
		defer close(r.told) // behind what follows
	}
	if why == "" {
		_ = r.stream.SetReadDeadline(time.Unix(1, 0))
		return
	}
	r.stream.Reset(wire.ResetAbandoned)
	_ = r.conn.Close()
}

// tellStream tells the agent how what it reads of a stream ended, or why what it writes is of no use.
func (s *Sidecar) tellStream(t wire.Type, id string, err error) {
	if id == "" {
		return
	}
	w := wire.Stream{Stream: id}
	if err != io.EOF { //nolint:errorlint // a Read's own
		e := StreamError(err)
		w.Code, w.Message = e.Code, e.Text
	}
	s.tell(wire.FeatureStreams, nil, func(b []byte) []byte { return wire.AppendStream(b, t, w) })
}
