//go:build !js

package rtc

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// A streamChannel is the data channel for streams as the multiplexer sees it, a [net.Conn]. What is written goes through the writer
// of the link, behind everything else that waits there.
type streamChannel struct {
	peer   *Peer
	dc     dataChannel
	in     *channelReader
	pieces pieces

	mu      sync.Mutex
	waiting []byte        // frames that the writer has not taken, as many as fit a slice
	taken   chan struct{} // buffered 1: the writer has taken them
	closed  chan struct{}
	once    sync.Once
	spare   []byte // for waiting; the writer's
	bad     error  // what the peer has done

	// Bytes and ends of streams that were handed to the multiplexer, and those that it has written.
	queued, written uint64
	progress        sync.Cond
}

func newStreamChannel(p *Peer, dc dataChannel) *streamChannel {
	c := &streamChannel{peer: p, dc: dc, in: &channelReader{dc: dc}, taken: make(chan struct{}, 1), closed: make(chan struct{})}
	c.pieces.maxStreams, c.pieces.unread = p.cfg.Limits.MaxStreams, make(map[uint32]int)
	c.progress.L = &c.mu
	return c
}

// Read reads what has arrived.
func (c *streamChannel) Read(b []byte) (int, error) {
	n, err := c.in.Read(b)
	if bad := c.pieces.pass(b[:n]); bad != nil {
		c.mu.Lock()
		c.bad = bad
		c.mu.Unlock()
		return 0, bad
	}
	return n, err
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
	if before == 0 {
		notify(c.peer.out.wake)
	}
	return true
}

// take has write called with the slice that waits, and reports whether there was one. Only the writer calls it.
func (c *streamChannel) take(write func(b []byte) error) (some bool, err error) {
	c.mu.Lock()
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
