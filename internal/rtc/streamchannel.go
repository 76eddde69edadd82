//go:build !js

package rtc

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// A streamChannel is the data channel for streams as the multiplexer sees it, a [net.Conn]. What is written goes through the writer
// of the link, behind everything else that waits there.
type streamChannel struct {
	peer *Peer
	dc   dataChannel
	raw  channelReader
	buf  []byte // of what was read of it
	in   *inflows

	mu      sync.Mutex
	waiting []byte         // frames that the writer has not taken, as many as fit a slice
	grants  map[uint32]int // by which streams may send more; the writer has not taken them
	taken   chan struct{}  // buffered 1: the writer has taken frames
	closed  chan struct{}
	once    sync.Once
	spare   []byte // for waiting; the writer's
	bad     error  // what the peer has done

	// Bytes and ends of streams that were handed to the multiplexer, and those that it has written.
	queued, written uint64
	progress        sync.Cond
}

func newStreamChannel(p *Peer, dc dataChannel, first bool) *streamChannel {
	c := &streamChannel{peer: p, dc: dc, raw: channelReader{dc: dc, stream: true}, grants: make(map[uint32]int), taken: make(chan struct{}, 1), closed: make(chan struct{})}
	c.in = &inflows{maxStreams: p.cfg.Limits.MaxStreams, streams: make(map[uint32]*inflow)}
	if first {
		c.in.ours = 1
	}
	c.progress.L = &c.mu
	return c
}

// Read reads the frames that are for the multiplexer. What streams carry it leaves to their readers.
func (c *streamChannel) Read(b []byte) (int, error) {
	for len(c.in.rest) == 0 {
		if c.buf == nil {
			c.buf = make([]byte, wire.SliceSize)
		}
		n, err := c.raw.Read(c.buf)
		bad := c.in.pass(c.buf[:n])
		if err == wire.ErrLater {
			bad, err = c.moved(string(c.raw.text)), nil
		}
		if bad != nil {
			c.mu.Lock()
			c.bad = bad
			c.mu.Unlock()
			return 0, bad
		}
		if err != nil {
			return 0, c.ended(err)
		}
	}
	n := copy(b, c.in.rest)
	c.in.rest = c.in.rest[:copy(c.in.rest, c.in.rest[n:])]
	return n, nil
}

// moved handles a text on the channel, which says that the rest goes over a socket of the host.
func (c *streamChannel) moved(text string) error {
	if text != string(wire.AppendPeerMoved(nil)) {
		return fmt.Errorf("%w: a text on the channel for streams", ErrViolation)
	}
	return c.peer.follow(localStreams, c.in.whole())
}

// ended returns the error of a read, once the link has ended with the channel: the multiplexer tells streams of an end of the channel as if
// it were one of theirs.
func (c *streamChannel) ended(err error) error {
	select {
	case <-c.closed:
		return err
	default:
	}
	if !c.peer.move.ending() { // else the reader of messages has the word, when it has read what has arrived
		c.peer.down(c.peer.endReason(err))
	}
	select {
	case <-c.peer.done:
	case <-c.closed:
	}
	return net.ErrClosed
}

// grant has the other end told that a stream may send more. It never blocks.
func (c *streamChannel) grant(id uint32, more int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) == 0 && len(c.grants) == 0 {
		notify(c.peer.out.wake)
	}
	c.grants[id] += more
}

// grantsLocked returns the frames that tell of grants, as many as fit a slice.
func (c *streamChannel) grantsLocked() (frames []byte) {
	for id, more := range c.grants {
		if len(frames)+frameHeader > wire.SliceSize {
			break
		}
		frames = append(frames, 0, frameWindow, 0, 0)
		frames = binary.BigEndian.AppendUint32(frames, id)
		frames = binary.BigEndian.AppendUint32(frames, uint32(more))
		delete(c.grants, id)
	}
	return frames
}

// why returns what the peer has done, nil if nothing.
func (c *streamChannel) why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bad
}

// Write has a frame wait for the writer, and blocks while it does not fit the slice that waits. Only one goroutine calls it.
func (c *streamChannel) Write(b []byte) (int, error) {
	for !c.put(b) {
		select {
		case <-c.taken:
		case <-c.closed:
			return 0, net.ErrClosed
		case <-c.peer.done:
			return 0, io.ErrClosedPipe
		}
	}
	return len(b), nil
}

// put reports whether a frame fits the slice that waits, and adds it if so.
func (c *streamChannel) put(frame []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.closed:
		return false
	default:
	}
	before := len(c.waiting)
	if before > 0 && before+len(frame) > wire.SliceSize {
		return false
	}
	c.waiting = append(c.waiting, frame...)
	c.wroteLocked(frame)
	if before == 0 && len(c.grants) == 0 {
		notify(c.peer.out.wake)
	}
	return true
}

// take has write called with the slice that waits, and reports whether there was one. Only the writer calls it.
func (c *streamChannel) take(write func(b []byte) error) (some bool, err error) {
	c.mu.Lock()
	if frames := c.grantsLocked(); len(frames) > 0 { // first: they are what the other end waits for
		c.mu.Unlock()
		return true, write(frames)
	}
	b := c.waiting
	if len(b) == 0 {
		c.mu.Unlock()
		return false, nil
	}
	c.waiting, c.spare = c.spare, b[:0]
	c.mu.Unlock()
	notify(c.taken)
	return true, write(b)
}

// queue notes bytes, or the end of what is written, of a stream, which the multiplexer is to write.
func (c *streamChannel) queue(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queued += uint64(n)
}

// dropEnd notes that an end which was queued is not to be written.
func (c *streamChannel) dropEnd() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.written++
	c.progress.Broadcast()
}

// wroteLocked notes a frame that was written.
func (c *streamChannel) wroteLocked(frame []byte) {
	if frame[1] == frameData {
		c.written += uint64(len(frame) - frameHeader)
	}
	if binary.BigEndian.Uint16(frame[2:])&frameEnds != 0 {
		c.written++
	}
	c.progress.Broadcast()
}

// flush blocks until the multiplexer has written what was queued, or ctx ends.
func (c *streamChannel) flush(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.progress.Broadcast()
	})
	defer stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for queued := c.queued; c.written < queued; c.progress.Wait() {
		select {
		case <-c.closed:
			return net.ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		default:
		}
	}
	return nil
}

// Close has reads and writes fail, and ends the channel.
func (c *streamChannel) Close() error {
	c.once.Do(func() {
		c.mu.Lock()
		close(c.closed)
		c.progress.Broadcast()
		c.mu.Unlock()
		_ = c.dc.SetReadDeadline(time.Now()) // fails once the channel has ended, as reads do
	})
	return nil
}

func (c *streamChannel) LocalAddr() net.Addr              { return nil }
func (c *streamChannel) RemoteAddr() net.Addr             { return nil }
func (c *streamChannel) SetDeadline(time.Time) error      { return nil }
func (c *streamChannel) SetReadDeadline(time.Time) error  { return nil }
func (c *streamChannel) SetWriteDeadline(time.Time) error { return nil }
