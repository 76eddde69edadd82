//go:build !js

package rtc

import (
	"net"
	"os"
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

	in       *inflow
	reading  sync.Mutex
	deadline deadline      // of reads
	over     chan struct{} // closed when it is closed

	writing sync.Mutex // one Write at a time: the multiplexer has no room for two

	ending      sync.Mutex // one end at a time, in order
	writeClosed atomic.Bool
	closed      atomic.Bool
	queueEnd    sync.Once // the end of what is written is on its way
	noEnd       sync.Once // it is not, after all
	leave       sync.Once // it no longer counts
}

func newStream(p *Peer, s *yamux.Stream, ours bool) *Stream {
	return &Stream{peer: p, s: s, ours: ours, in: p.streams.channel.in.open(s.StreamID()), over: make(chan struct{})}
}

// Read returns what has arrived; io.EOF after CloseWrite or Close at the other end.
func (s *Stream) Read(b []byte) (int, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	for {
		late := s.deadline.wait()
		switch {
		case s.closed.Load():
			return 0, net.ErrClosed
		case isClosed(late):
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			return 0, nil
		}
		n, more, err := s.in.read(b, s.peer.streams.channel.in, s.peer.streams.session.RTT())
		if more > 0 {
			s.peer.streams.channel.grant(s.s.StreamID(), more)
		}
		if n > 0 || err != nil {
			s.answered.Store(true)
			return n, err
		}
		select {
		case <-s.in.wake:
		case <-late:
		case <-s.over:
		case <-s.peer.done:
			return s.lastRead(b)
		}
	}
}

// lastRead reads what had arrived when the link ended.
func (s *Stream) lastRead(b []byte) (int, error) {
	n, _, err := s.in.read(b, s.peer.streams.channel.in, 0)
	if n == 0 && err == nil {
		err = linkEnd{s.peer.why}
	}
	return n, err
}

// err returns an error of the multiplexer as one of ours.
func (s *Stream) err(err error) error {
	if err != nil && s.closed.Load() {
		return net.ErrClosed
	}
	return s.peer.streamError(err)
}

// Write blocks while the other end's window is full.
func (s *Stream) Write(b []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.writeClosed.Load() {
		return 0, net.ErrClosed
	}
	if isClosed(s.peer.done) { // the multiplexer learns it a moment later
		return 0, linkEnd{s.peer.why}
	}
	n, err := s.s.Write(b)
	s.peer.streams.channel.queue(n)
	if err != nil && s.writeClosed.Load() {
		return n, net.ErrClosed
	}
	return n, s.err(err)
}

// CloseWrite says that nothing more will be written. It does not block, nor do Close and Reset.
func (s *Stream) CloseWrite() error {
	if s.closed.Load() {
		return net.ErrClosed
	}
	s.stopWriting()
	s.endWriting()
	s.peer.streams.finish(s.sendEnd)
	return nil
}

// stopWriting has writes that are under way end, and others fail.
func (s *Stream) stopWriting() {
	s.writeClosed.Store(true)
	_ = s.s.SetWriteDeadline(time.Unix(1, 0))
}

// endWriting notes that the end of what is written is to be flushed.
func (s *Stream) endWriting() { s.queueEnd.Do(func() { s.peer.streams.channel.queue(1) }) }

// sendEnd has the multiplexer send the end of what was written, once no write is under way: what that has handed over could come behind
// the end, where it is lost.
func (s *Stream) sendEnd() {
	s.writing.Lock()
	defer s.writing.Unlock()
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
	s.stopWriting()
	s.endWriting()
	close(s.over)
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
	s.stopWriting()
	close(s.over)
	s.peer.streams.finish(func() { s.reset(code) })
}

func (s *Stream) reset(code uint32) {
	s.ending.Lock()
	defer s.ending.Unlock()
	_ = s.s.ResetWithError(code)
	s.leave.Do(func() {
		s.peer.streams.channel.in.forget(s.s.StreamID())
		if s.ours && !s.answered.Load() { // or those given up during an outage would all come to the peer at once
			_, _ = s.peer.streams.session.Ping() // an error is the end of the link
		}
		s.peer.streams.leave(s.ours) // now that the other end learns it before it learns of another stream
	})
}

// SetDeadline implements net.Conn.
func (s *Stream) SetDeadline(t time.Time) error {
	if err := s.SetReadDeadline(t); err != nil {
		return err
	}
	return s.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (s *Stream) SetReadDeadline(t time.Time) error {
	if s.closed.Load() {
		return net.ErrClosed
	}
	s.deadline.set(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	if s.closed.Load() {
		return net.ErrClosed
	}
	err := s.s.SetWriteDeadline(t)
	if s.writeClosed.Load() { // meanwhile, or before
		_ = s.s.SetWriteDeadline(time.Unix(1, 0))
	}
	return err
}
