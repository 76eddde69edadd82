//go:build !js

package rtc

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-yamux/v5"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// A Stream is a stream of bytes to or from a peer, with flow control of its own: what its reader does not read holds up nothing else. It
// is a [net.Conn], but for addresses. An outage that the link survives, it survives. Its methods may be called from any goroutine.
type Stream struct {
	peer *Peer
	s    *yamux.Stream
	ours bool // we have opened it
	// The peer has said something in it.
	answered atomic.Bool

	reading sync.Mutex
	rest    []byte // of buf, not yet read
	buf     *[wire.SliceSize]byte

	writing sync.Mutex // one Write at a time: the multiplexer has no room for two

	ending      sync.Mutex // one end at a time, in order
	writeClosed atomic.Bool
	closed      atomic.Bool
	queueEnd    sync.Once // the end of what is written is on its way
	noEnd       sync.Once // it is not, after all
	leave       sync.Once // it no longer counts
}

// pieceBuffers are for readers with less room than the largest piece takes.
var pieceBuffers = sync.Pool{New: func() any { return new([wire.SliceSize]byte) }}

// Read returns what has arrived; io.EOF after CloseWrite or Close at the other end.
func (s *Stream) Read(b []byte) (int, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	if len(b) >= wire.SliceSize {
		if len(s.rest) == 0 {
			return s.read(b)
		}
	} else if len(s.rest) == 0 && len(b) > 0 {
		s.buf = pieceBuffers.Get().(*[wire.SliceSize]byte)
		n, err := s.read(s.buf[:])
		if s.rest = s.buf[:n]; n == 0 {
			s.release()
			return 0, err
		}
	}
	n := copy(b, s.rest)
	if s.rest = s.rest[n:]; len(s.rest) == 0 {
		s.release()
	}
	return n, nil
}

// read reads one piece, which fits.
func (s *Stream) read(b []byte) (int, error) {
	n, err := s.s.Read(b)
	reset := (*yamux.StreamError)(nil)
	if n > 0 || err == io.EOF || errors.As(err, &reset) && reset.Remote { //nolint:errorlint // the multiplexer's very own
		s.answered.Store(true)
	}
	if n > 0 {
		s.peer.streams.channel.pieces.read(s.s.StreamID())
		return n, nil // an error comes again
	}
	return 0, s.err(err)
}

// err returns an error of the multiplexer as one of ours.
func (s *Stream) err(err error) error {
	if err != nil && s.closed.Load() {
		return net.ErrClosed
	}
	return s.peer.streamError(err)
}

func (s *Stream) release() {
	if s.buf != nil {
		pieceBuffers.Put(s.buf)
		s.buf, s.rest = nil, nil
	}
}

// Write blocks while the other end's window is full.
func (s *Stream) Write(b []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.writeClosed.Load() {
		return 0, net.ErrClosed
	}
	n, err := s.s.Write(b)
	s.peer.streams.channel.queue(n)
	return n, s.err(err)
}

// CloseWrite says that nothing more will be written. It does not block, nor do Close and Reset.
func (s *Stream) CloseWrite() error {
	if s.closed.Load() {
		return net.ErrClosed
	}
	s.writeClosed.Store(true)
	s.endWriting()
	s.peer.streams.finish(s.sendEnd)
	return nil
}

// endWriting notes that the end of what is written is to be flushed.
func (s *Stream) endWriting() { s.queueEnd.Do(func() { s.peer.streams.channel.queue(1) }) }

// sendEnd has the multiplexer send the end of what was written.
func (s *Stream) sendEnd() {
	s.ending.Lock()
	defer s.ending.Unlock()
	if err := s.s.CloseWrite(); err != nil { // nothing is to be sent
		s.noEnd.Do(s.peer.streams.channel.dropEnd)
	}
}

// Close ends both directions. What was written is still delivered; what arrives is dropped, and the other end is told, so that its
// writes fail. It returns net.ErrClosed if it was closed.
func (s *Stream) Close() error {
	if s.closed.Swap(true) {
		return net.ErrClosed
	}
	s.peer.streams.closes(s.ours)
	s.writeClosed.Store(true)
	s.endWriting()
	_ = s.s.SetDeadline(time.Unix(1, 0)) // reads and writes that are under way end
	s.peer.streams.finish(func() {
		s.sendEnd()
		s.reset(wire.ResetClosed) // which does not touch what came before the end
	})
	return nil
}

// Reset ends both directions at once, with a code for the other end. What the other end has not read is lost to it, unless CloseWrite was
// called before.
func (s *Stream) Reset(code uint32) {
	if s.closed.Swap(true) {
		return
	}
	s.peer.streams.closes(s.ours)
	s.writeClosed.Store(true)
	_ = s.s.SetDeadline(time.Unix(1, 0))
	s.peer.streams.finish(func() { s.reset(code) })
}

func (s *Stream) reset(code uint32) {
	s.ending.Lock()
	defer s.ending.Unlock()
	_ = s.s.ResetWithError(code)
	s.leave.Do(func() {
		s.peer.streams.channel.pieces.forget(s.s.StreamID())
		if s.ours && !s.answered.Load() { // or those given up during an outage would all come to the peer at once
			_, _ = s.peer.streams.session.Ping() // an error is the end of the link
		}
		s.peer.streams.leave(s.ours) // now that the other end learns it before it learns of another stream
	})
}

// SetDeadline implements net.Conn.
func (s *Stream) SetDeadline(t time.Time) error { return s.setDeadline(s.s.SetDeadline, t) }

// SetReadDeadline implements net.Conn.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.setDeadline(s.s.SetReadDeadline, t) }

// SetWriteDeadline implements net.Conn.
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.setDeadline(s.s.SetWriteDeadline, t) }

func (s *Stream) setDeadline(set func(time.Time) error, t time.Time) error {
	if s.closed.Load() {
		return net.ErrClosed
	}
	err := set(t)
	if s.closed.Load() { // meanwhile
		_ = s.s.SetDeadline(time.Unix(1, 0))
	}
	return err
}
