//go:build !js

package rtc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-yamux/v5"

	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// streamsLabel is that of the data channel for streams.
	streamsLabel = "mesh-streams"
	// streamWindow is how many bytes a stream holds for a reader that does not read, and streamWindowMost to how many its window grows
	// where the path carries that much. windowsMost is what all windows of a peer may have grown by.
	streamWindow     = 256 << 10
	streamWindowMost = 4 << 20
	windowsMost      = 16 << 20
)

// The reasons why a stream is not opened, or ends. They are wrapped, so use errors.Is.
var (
	// ErrNoStreams means that the peer knows no streams.
	ErrNoStreams = errors.New("the peer has no streams")
	// ErrStreamReset means that the other end has given the stream up; a [*ResetError] has its code.
	ErrStreamReset = errors.New("the stream was reset")
)

// A ResetError is the end of a stream that was reset.
type ResetError struct {
	Code uint32
}

func (e *ResetError) Error() string { return fmt.Sprintf("the stream was reset, code %d", e.Code) }

// Is reports whether the target is ErrStreamReset.
func (e *ResetError) Is(target error) bool { return target == ErrStreamReset }

// streams are the byte streams of one link, on a data channel of their own. That is made when one of the two ends first opens a
// stream: by the end that made the first offer, which the other end asks for it with a control line, so that there is one. A kept
// multiplexer runs on it, whose windows bound each stream by itself. All channels of a link share one receive window, so what
// arrives is always read.
type streams struct {
	able bool   // both ends know streams
	make func() // begins to make the channel, at the end that does that; else asks for it

	ready chan struct{} // closed when session is set

	mu      sync.Mutex
	asked   bool
	channel *streamChannel
	session *yamux.Session
	windows int // bytes by which windows have grown
}

// Streams reports whether the link can carry streams.
func (p *Peer) Streams() bool { return p.streams.able }

// OpenStream opens a stream, whose other end is passed to the peer's Events.PeerStream. It blocks under ctx while there is no channel
// for it yet, or while the peer has not taken very many. The error is ErrNoStreams, the reason of the link's end, or the cause of ctx.
func (p *Peer) OpenStream(ctx context.Context) (*Stream, error) {
	if !p.streams.able {
		return nil, ErrNoStreams
	}
	p.wantStreams()
	select {
	case <-p.streams.ready:
	case <-p.done:
		return nil, p.why
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	s, err := p.streams.session.OpenStream(ctx)
	switch {
	case err == nil:
		return &Stream{peer: p, s: s}, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	return nil, p.streamError(err)
}

// channelOrNil returns the channel, nil while there is none.
func (s *streams) channelOrNil() *streamChannel {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.channel
}

// wantStreams has the channel made, once.
func (p *Peer) wantStreams() {
	s := &p.streams
	s.mu.Lock()
	again := s.asked
	s.asked = true
	s.mu.Unlock()
	if !again {
		s.make()
	}
}

// startStreams begins to use the channel for streams. first says that this end made it.
func (p *Peer) startStreams(dc dataChannel, first bool) error {
	c := newStreamChannel(p, dc)
	mux := yamux.Client
	if !first {
		mux = yamux.Server
	}
	session, err := mux(c, p.streamsConfig(), func() (yamux.MemoryManager, error) { return &windowMemory{of: &p.streams}, nil })
	if err != nil {
		return fmt.Errorf("streams: %w", err)
	}
	dc.OnBufferedAmountLow(func() { notify(p.low) })
	p.transit.add(dc)
	p.streams.mu.Lock()
	defer p.streams.mu.Unlock()
	p.streams.channel, p.streams.session = c, session
	close(p.streams.ready)
	return nil
}

func (p *Peer) streamsConfig() *yamux.Config {
	return &yamux.Config{
		AcceptBacklog:          p.cfg.Limits.MaxStreams,
		PingBacklog:            4,
		MeasureRTTInterval:     30 * time.Second,  // by which windows grow
		ConnectionWriteTimeout: math.MaxInt64 / 4, // the link has its own ways to notice that
		MaxIncomingStreams:     uint32(p.cfg.Limits.MaxStreams),

		InitialStreamWindowSize: streamWindow,
		MaxStreamWindowSize:     streamWindowMost,
		MaxMessageSize:          wire.SliceSize,
		ReadBufSize:             wire.SliceSize, // so that a slice fits
		LogOutput:               io.Discard,
	}
}

// acceptStreams passes the streams that the peer opens, until the end of the link, which the end of their channel is, too.
func (p *Peer) acceptStreams() {
	select {
	case <-p.streams.ready:
	case <-p.done:
		return
	}
	for {
		s, err := p.streams.session.AcceptStream()
		if err != nil {
			break
		}
		p.ev.PeerStream(p, &Stream{peer: p, s: s})
	}
	p.down(fmt.Errorf("%w: its channel for streams has ended", ErrPeerClosed))
}

// endStreams ends all streams with the link.
func (p *Peer) endStreams() {
	<-p.done
	select {
	case <-p.streams.ready:
		_ = p.streams.session.Close()
	default:
	}
}

// streamError returns an error of the multiplexer as one of ours.
func (p *Peer) streamError(err error) error {
	reset := (*yamux.StreamError)(nil)
	switch {
	case err == nil || err == io.EOF: //nolint:errorlint // the multiplexer's very own
		return err
	case errors.Is(err, yamux.ErrTimeout):
		return os.ErrDeadlineExceeded
	case errors.Is(err, yamux.ErrStreamClosed):
		return net.ErrClosed
	case errors.As(err, &reset) && reset.Remote:
		return &ResetError{reset.ErrorCode}
	case errors.As(err, &reset):
		return net.ErrClosed
	}
	select {
	case <-p.done:
		return p.why
	default:
		return fmt.Errorf("%w: %w", ErrPeerClosed, err)
	}
}

// A Stream is a stream of bytes to or from a peer, with flow control of its own: what its reader does not read holds up nothing else. It
// is a [net.Conn], but for addresses. An outage that the link survives, it survives.
type Stream struct {
	peer *Peer
	s    *yamux.Stream
	mu   sync.Mutex // one Write at a time: the multiplexer has no room for two
}

// Peer returns the peer at the other end.
func (s *Stream) Peer() *Peer { return s.peer }

// Read returns what has arrived; io.EOF after CloseWrite or Close at the other end.
func (s *Stream) Read(b []byte) (int, error) {
	n, err := s.s.Read(b)
	return n, s.peer.streamError(err)
}

// Write blocks while the other end's window is full.
func (s *Stream) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.s.Write(b)
	return n, s.peer.streamError(err)
}

// CloseWrite says that nothing more will be written.
func (s *Stream) CloseWrite() error { return s.peer.streamError(s.s.CloseWrite()) }

// Close ends both directions. What was written is still delivered; what arrives is dropped.
func (s *Stream) Close() error { return s.peer.streamError(s.s.Close()) }

// Reset ends both directions at once, with a code for the other end.
func (s *Stream) Reset(code uint32) { _ = s.s.ResetWithError(code) }

// SetDeadline implements net.Conn.
func (s *Stream) SetDeadline(t time.Time) error { return s.s.SetDeadline(t) }

// SetReadDeadline implements net.Conn.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.s.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.s.SetWriteDeadline(t) }

// windowMemory bounds what the windows of a peer's streams grow by. The first window of each stream is bounded by their number.
type windowMemory struct {
	of   *streams
	held int
}

// ReserveMemory implements yamux.MemoryManager.
func (m *windowMemory) ReserveMemory(size int, priority uint8) error {
	if priority == math.MaxUint8 { // a first window
		return nil
	}
	m.of.mu.Lock()
	defer m.of.mu.Unlock()
	if m.of.windows+size > windowsMost {
		return errors.New("the windows of this peer's streams have grown far enough")
	}
	m.of.windows += size
	m.held += size
	return nil
}

// ReleaseMemory implements yamux.MemoryManager.
func (m *windowMemory) ReleaseMemory(size int) {
	m.of.mu.Lock()
	defer m.of.mu.Unlock()
	m.of.windows -= size
	m.held -= size
}

// Done implements yamux.MemoryManager.
func (m *windowMemory) Done() {
	m.of.mu.Lock()
	defer m.of.mu.Unlock()
	m.of.windows -= m.held
	m.held = 0
}
