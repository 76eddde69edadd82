//go:build !js

package rtc

import (
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
	in   *channelReader

	mu      sync.Mutex
	waiting []byte        // what Write is writing, as far as the writer has not taken it
	taken   chan struct{} // buffered 1: the writer has taken all of it
	closed  chan struct{}
	once    sync.Once
}

func newStreamChannel(p *Peer, dc dataChannel) *streamChannel {
	return &streamChannel{peer: p, dc: dc, in: &channelReader{dc: dc}, taken: make(chan struct{}, 1), closed: make(chan struct{})}
}

// Read reads what has arrived.
func (c *streamChannel) Read(b []byte) (int, error) { return c.in.Read(b) }

// Write blocks until the writer has taken b. Only one goroutine calls it.
func (c *streamChannel) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.waiting = b
	c.mu.Unlock()
	notify(c.peer.out.wake)
	var err error
	select {
	case <-c.taken:
		return len(b), nil
	case <-c.closed:
		err = net.ErrClosed
	case <-c.peer.done:
		err = io.ErrClosedPipe
	}
	c.mu.Lock() // the writer may be at it
	defer c.mu.Unlock()
	c.waiting = nil
	return 0, err
}

// take has write called with the next slice of what waits, and reports whether there was one.
func (c *streamChannel) take(write func(b []byte) error) (some bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(c.waiting), wire.SliceSize)
	if n == 0 {
		return false, nil
	}
	if err = write(c.waiting[:n]); err != nil {
		return false, err
	}
	if c.waiting = c.waiting[n:]; len(c.waiting) == 0 {
		c.waiting = nil
		notify(c.taken)
	}
	return true, nil
}

// Close has reads and writes fail, and ends the channel.
func (c *streamChannel) Close() error {
	c.once.Do(func() {
		close(c.closed)
		_ = c.dc.SetReadDeadline(time.Now()) // fails once the channel has ended, as reads do
	})
	return nil
}

func (c *streamChannel) LocalAddr() net.Addr              { return nil }
func (c *streamChannel) RemoteAddr() net.Addr             { return nil }
func (c *streamChannel) SetDeadline(time.Time) error      { return nil }
func (c *streamChannel) SetReadDeadline(time.Time) error  { return nil }
func (c *streamChannel) SetWriteDeadline(time.Time) error { return nil }
