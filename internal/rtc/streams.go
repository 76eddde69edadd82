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
	// lateStreams is how many times as many streams as a peer may have open there may be that we have not closed: of some the peer
	// has heard nothing more, or has closed them.
	lateStreams = 2
	// opensAhead is how many times as many streams as a peer may have open it may have opened before it has read that there are too
	// many. A peer of ours knows how many it may.
	opensAhead = 4
)

// streams are the byte streams of one link, on a data channel of their own. That is made when one of the two ends first opens a
// stream: by the end that made the first offer, which the other end asks for it with a control line, so that there is one. A kept
// multiplexer runs on it, whose windows bound each stream by itself. All channels of a link share one receive window, so what
// arrives is always read.
type streams struct {
	able bool   // both ends know streams
	make func() // begins to make the channel, at the end that does that; else asks for it

	ready   chan struct{} // closed when session is set
	opening chan struct{} // one-slot semaphore: held while a stream is opened

	mu       sync.Mutex
	asked    bool
	channel  *streamChannel
	session  *yamux.Session
	theirs   int // streams that the peer has opened
	ours     int // streams that we have opened
	closing  int // those of them that are closed, which the peer is yet to be told
	left     sync.Cond
	oursMost int // as the peer says
	over     bool
	work     sync.WaitGroup // what sends the ends of streams
}

// Streams reports whether the link can carry streams.
func (p *Peer) Streams() bool { return p.streams.able }

// OpenStream opens a stream, whose other end is passed to the peer's Events.PeerStream. It blocks under ctx while there is no channel
// for it yet. The error is ErrNoStreams, ErrTooManyStreams, the reason of the link's end, or the cause of ctx.
func (p *Peer) OpenStream(ctx context.Context) (*Stream, error) {
	if !p.streams.able {
		return nil, ErrNoStreams
	}
	if err := p.enterStream(ctx); err != nil {
		return nil, err
	}
	s, err := p.openStream(ctx)
	if err != nil {
		p.streams.closes(true)
		p.streams.leave(true)
		return nil, err
	}
	return s, nil
}

func (p *Peer) openStream(ctx context.Context) (*Stream, error) {
	p.wantStreams()
	select {
	case <-p.streams.ready:
	case <-p.done:
		return nil, linkEnd{p.why}
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	select { // one after the other: what arrives is known by ids that rise
	case p.streams.opening <- struct{}{}:
		defer func() { <-p.streams.opening }()
	case <-p.done:
		return nil, linkEnd{p.why}
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	s, err := p.streams.session.OpenStream(ctx)
	switch {
	case err == nil:
		return newStream(p, s, true), nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	return nil, p.streamError(err)
}

// enterStream counts one stream more of ours, unless there are too many. For those that are closed already it waits until that is on its
// way.
func (p *Peer) enterStream(ctx context.Context) error {
	s := &p.streams
	stop := context.AfterFunc(ctx, s.wake)
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.ours >= s.oursMost {
		switch {
		case s.ours-s.closing >= s.oursMost:
			return ErrTooManyStreams
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case s.over:
			return linkEnd{p.why}
		}
		s.left.Wait()
	}
	s.ours++
	return nil
}

func (s *streams) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left.Broadcast()
}

// closes notes that a stream of ours is closed, which the peer is yet to be told.
func (s *streams) closes(ours bool) {
	if !ours {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing++
}

// allow sets how many streams of ours there may be.
func (s *streams) allow(most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oursMost = most
}

// leave counts one stream less.
func (s *streams) leave(ours bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ours {
		s.theirs--
		return
	}
	s.ours--
	s.closing--
	s.left.Broadcast()
}

// channelOrNil returns the channel, nil while there is none.
func (s *streams) channelOrNil() *streamChannel {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.channel
}

// started reports whether the channel is in use.
func (s *streams) started() bool {
	select {
	case <-s.ready:
		return true
	default:
		return false
	}
}

// begun reports whether the channel was asked for.
func (s *streams) begun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
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
	c := newStreamChannel(p, dc, first)
	dc.OnBufferedAmountLow(func() { notify(p.low) })
	if !p.streams.use(c) { // before the multiplexer begins, since the writer is woken only by the first frame that waits
		return fmt.Errorf("%w: a second channel for streams", ErrViolation)
	}
	p.transit.add(dc)
	mux := yamux.Client
	if !first {
		mux = yamux.Server
	}
	session, err := mux(c, p.streamsConfig(), nil)
	if err != nil {
		return fmt.Errorf("streams: %w", err)
	}
	p.streams.mu.Lock()
	over := p.streams.over
	p.streams.session = session
	close(p.streams.ready)
	p.streams.mu.Unlock()
	if over {
		_ = session.Close()
	}
	notify(p.out.wake) // it may be to move
	return nil
}

// use has the writer look for frames in the channel, unless there is one already.
func (s *streams) use(c *streamChannel) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.channel != nil {
		return false
	}
	s.channel = c
	return true
}

// streamsConfig has the multiplexer never refuse a stream by itself: its reader would wait for room to say so.
func (p *Peer) streamsConfig() *yamux.Config {
	return &yamux.Config{
		AcceptBacklog:          opensAhead * p.cfg.Limits.MaxStreams,
		PingBacklog:            4,
		MeasureRTTInterval:     30 * time.Second,  // by which windows grow
		ConnectionWriteTimeout: math.MaxInt64 / 4, // the link has its own ways to notice that
		MaxIncomingStreams:     uint32(opensAhead * p.cfg.Limits.MaxStreams),

		InitialStreamWindowSize: streamWindow,
		MaxStreamWindowSize:     streamWindowMost,
		MaxMessageSize:          wire.SliceSize,
		ReadBufSize:             wire.SliceSize, // so that a slice fits
		LogOutput:               io.Discard,
	}
}

// acceptStreams passes the streams that the peer opens, until the end of the link, which the end of their channel is, too. It is called when
// the link is up.
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
		p.acceptStream(newStream(p, s, false))
	}
	reason := p.streams.channel.why()
	if reason == nil {
		reason = fmt.Errorf("%w: its channel for streams has ended", ErrPeerClosed)
	}
	p.down(reason)
}

func (p *Peer) acceptStream(s *Stream) {
	p.streams.mu.Lock()
	p.streams.theirs++
	full := p.streams.theirs > lateStreams*p.cfg.Limits.MaxStreams
	p.streams.mu.Unlock()
	passed := false
	if !full {
		p.emit(func() {
			passed = true
			p.ev.PeerStream(p, s)
		})
	}
	if !passed {
		s.Reset(wire.ResetFull)
	}
}

// endStreams ends all streams with the link.
func (p *Peer) endStreams() {
	<-p.done
	p.streams.mu.Lock()
	p.streams.over = true
	p.streams.left.Broadcast()
	p.streams.mu.Unlock()
	if p.streams.started() {
		_ = p.streams.session.Close()
	}
	p.streams.work.Wait()
}

// finish has f called, which sends something about a stream and may block until the link ends.
func (s *streams) finish(f func()) {
	s.mu.Lock()
	over := s.over
	if !over {
		s.work.Add(1)
	}
	s.mu.Unlock()
	if over { // nothing blocks any more
		f()
		return
	}
	go func() {
		defer s.work.Done()
		f()
	}()
}

// flushStreams blocks until the peer has what was written to streams, or the link or ctx ends.
func (p *Peer) flushStreams(ctx context.Context) error {
	if !p.streams.started() {
		return nil
	}
	if err := p.streams.channel.flush(ctx); err != nil {
		return err
	}
	for range 2 { // the first may have been under way before
		if err := p.pingStreams(ctx); err != nil {
			return err
		}
	}
	return nil
}

// pingStreams blocks until the peer's multiplexer has responded.
func (p *Peer) pingStreams(ctx context.Context) error {
	done := make(chan error, 1)
	p.streams.finish(func() {
		_, err := p.streams.session.Ping()
		done <- err
	})
	select {
	case err := <-done:
		return p.streamError(err)
	case <-ctx.Done():
		return context.Cause(ctx)
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
		return linkEnd{p.why}
	default:
		return fmt.Errorf("%w: %v", ErrPeerClosed, err)
	}
}

// A linkEnd is the reason for which a link has ended, as who uses its streams gets it. Errors of other packages in it, such as a timeout
// of pion's, say nothing of the stream: it would look as if it could go on.
type linkEnd struct{ why error }

func (e linkEnd) Error() string { return e.why.Error() }

func (e linkEnd) Is(target error) bool {
	switch target { //nolint:errorlint // this is what errors.Is calls
	case os.ErrDeadlineExceeded, context.DeadlineExceeded, context.Canceled, net.ErrClosed, io.EOF:
		return false
	}
	return errors.Is(e.why, target)
}
