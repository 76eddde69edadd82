//go:build !js

package rtc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/chatixia-ai/mesh/internal/nowait"
	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// localHeader is the length of what is in front of each message on a socket: whether it is text, and its length in three bytes.
	localHeader = 4
	localText   = 1
	localBye    = 2 // nothing follows: the other end ends the link
	// localBudget is how many bytes may wait for the socket, besides those that it holds itself: what lies there is in front of whatever
	// comes next.
	localBudget = 128 << 10
	// localRead is the size of the buffer for what arrives while much does, and localIdle otherwise.
	localRead = 128 << 10
	localIdle = 2 << 10
	// hangUpLook is how often it is looked whether the other end of a socket that is not read is gone.
	hangUpLook = 100 * time.Millisecond
	// deathPatience is how long after its sockets a process that dies may end itself.
	deathPatience = 50 * time.Millisecond
	// localWrite is how much is written at a time by the goroutine that does so when the socket is full.
	localWrite = 64 << 10
)

// A localChannel carries what a data channel does over a Unix socket to a process on the same host.
type localChannel struct {
	conn   net.Conn
	direct *sock.Direct
	wake   chan struct{} // buffered 1: bytes wait, or it is closed

	mu      sync.Mutex
	frame   []byte // of the message that is being written
	waiting []byte // for the socket
	taken   int    // bytes that the pump is writing
	spare   []byte // for waiting
	low     uint64
	onLow   func()
	broken  bool // nothing can be written any more
	closed  bool
	hungUp  func(why error) // called when the other end is gone while the socket is not read; nil while it is
	watch   *sock.Watch     // by share

	// Of the reader.
	in         []byte
	start, end int             // in[start:end] is unread
	last       int             // bytes that the last read gave
	idle       [localIdle]byte // the buffer while little comes
}

// localBuffers are buffers of localRead bytes.
var localBuffers = sync.Pool{New: func() any { return new([localRead]byte) }}

func newLocalChannel(conn net.Conn) *localChannel {
	c := &localChannel{conn: conn, direct: sock.NewDirect(conn), wake: make(chan struct{}, 1), onLow: func() {}}
	c.in = c.idle[:]
	c.direct.Idle = c.rest
	return c
}

// WriteDataChannel does not block: what the socket does not take waits.
func (c *localChannel) WriteDataChannel(b []byte, text bool) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		part := b[:min(len(b), wire.SliceSize)]
		if err := c.writeLocked(part, text); err != nil {
			return n, err
		}
		n += len(part)
		if b = b[len(part):]; len(b) == 0 {
			return n, nil
		}
	}
}

// writeLocked writes one message, with its header.
func (c *localChannel) writeLocked(b []byte, text bool) error {
	if c.closed || c.broken {
		return io.ErrClosedPipe
	}
	head := [localHeader]byte{0, byte(len(b) >> 16), byte(len(b) >> 8), byte(len(b))}
	if text {
		head[0] = localText
	}
	if len(c.waiting) > 0 || c.taken > 0 {
		c.waiting = append(append(c.waiting, head[:]...), b...)
		return nil
	}
	c.frame = append(append(c.frame[:0], head[:]...), b...)
	if n := c.direct.TryWrite(c.frame); n < len(c.frame) {
		c.waiting = append(c.waiting, c.frame[n:]...)
		notify(c.wake)
	}
	return nil
}

// pump writes what waits, until the channel is closed. While the socket is not read it looks whether the other end is there.
func (c *localChannel) pump() {
	for {
		var look <-chan time.Time
		if c.unread() != nil {
			look = time.After(hangUpLook)
		}
		select {
		case <-c.wake:
		case <-look:
			if hungUp := c.unread(); hungUp != nil && sock.Hung(c.conn) {
				c.setUnread(nil)
				hungUp(c.whyEnded())
			}
			continue
		}
		for b, open := c.take(nil); ; b, open = c.take(b) {
			if !open {
				return
			}
			if len(b) == 0 {
				break
			}
			c.write(b)
		}
	}
}

// setUnread notes that the socket is not read, and has hungUp called once the other end is gone; nil: it is read again.
func (c *localChannel) setUnread(hungUp func(why error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hungUp = hungUp
	notify(c.wake)
}

func (c *localChannel) unread() func(error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hungUp
}

// take exchanges the pump's used-up buffer for what waits. It reports whether the channel is open.
func (c *localChannel) take(used []byte) (b []byte, open bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if used != nil && cap(used) <= 2*localBudget {
		c.spare = used[:0]
	}
	if len(c.waiting) == 0 {
		return nil, !c.closed
	}
	b, c.waiting, c.spare = c.waiting, c.spare, nil
	c.taken = len(b)
	return b, !c.closed
}

// write writes bytes that the pump has taken.
func (c *localChannel) write(b []byte) {
	for len(b) > 0 {
		n, err := c.conn.Write(b[:min(len(b), localWrite)])
		if b = b[n:]; err != nil {
			c.breakOff()
			return
		}
		c.mu.Lock()
		before := c.bufferedLocked()
		c.taken = len(b)
		fell := before > c.low && c.bufferedLocked() <= c.low
		onLow := c.onLow
		c.mu.Unlock()
		if fell {
			onLow()
		}
	}
}

// breakOff has writes fail from now on, since one has. What has arrived is read all the same.
func (c *localChannel) breakOff() {
	c.mu.Lock()
	c.broken, c.waiting, c.taken = true, nil, 0
	onLow := c.onLow
	c.mu.Unlock()
	onLow() // the writer finds out
}

func (c *localChannel) bufferedLocked() uint64 { return uint64(len(c.waiting) + c.taken) }

// BufferedAmount returns the bytes that wait for the socket. Those that it has taken may not have been read yet.
func (c *localChannel) BufferedAmount() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bufferedLocked()
}

func (c *localChannel) SetBufferedAmountLowThreshold(n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.low = n
}

func (c *localChannel) OnBufferedAmountLow(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onLow = f
}

// share has reads return wire.ErrLater instead of blocking, but for those of guests: who reads is to wait for the Watch instead. Only who reads
// calls it.
func (c *localChannel) share() (*sock.Watch, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, net.ErrClosed
	}
	w, err := sock.NewWatch(c.conn)
	if err == nil {
		c.watch, c.direct.Later = w, true
	}
	return w, err
}

// ReadDataChannel returns the next message. It keeps one that does not fit b, and returns io.ErrShortBuffer then.
func (c *localChannel) ReadDataChannel(b []byte) (n int, text bool, err error) {
	if err := c.fill(localHeader); err != nil {
		return 0, false, err
	}
	head := binary.BigEndian.Uint32(c.in[c.start:])
	n = int(head & 0xffffff)
	switch {
	case head>>24 == localBye:
		return 0, false, io.EOF
	case head>>24 > localText || n > wire.SliceSize:
		return 0, false, fmt.Errorf("%w: on the socket a message begins with %#x", ErrViolation, head)
	case n > len(b):
		return 0, false, io.ErrShortBuffer
	}
	if err := c.fill(localHeader + n); err != nil {
		return 0, false, err
	}
	copy(b, c.in[c.start+localHeader:c.start+localHeader+n])
	c.start += localHeader + n
	return n, head>>24 == localText, nil
}

// fill blocks until so many bytes are there.
func (c *localChannel) fill(n int) error {
	for c.end-c.start < n {
		c.makeRoom(n)
		got, err := c.direct.Read(c.in[c.end:])
		c.end, c.last = c.end+got, got
		switch {
		case errors.Is(err, nowait.ErrWait):
			return wire.ErrLater
		case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
			return c.whyEnded()
		case err != nil:
			return err
		}
	}
	return nil
}

// whyEnded returns why the socket has ended without a farewell: the other process has died, or it has left while the socket was full.
func (c *localChannel) whyEnded() error {
	ctx, cancel := context.WithTimeout(context.Background(), deathPatience)
	defer cancel()
	if err := sock.WaitPeer(ctx, c.conn); errors.Is(err, context.DeadlineExceeded) {
		return io.EOF
	}
	return ErrDied
}

// makeRoom makes room for n bytes from start on, in a buffer of the size that what arrives needs.
func (c *localChannel) makeRoom(n int) {
	before := c.in
	switch {
	case len(before) == localIdle && (n > localIdle || c.last == localIdle):
		c.in = localBuffers.Get().(*[localRead]byte)[:]
	case c.start < c.end && c.start+n <= len(c.in):
		return
	}
	c.end = copy(c.in, before[c.start:c.end])
	c.start = 0
}

// rest returns the buffer for what comes next, when nothing is there: a small one, unless a message has come in part.
func (c *localChannel) rest() []byte {
	if c.start == c.end && len(c.in) == localRead {
		localBuffers.Put((*[localRead]byte)(c.in))
		c.in, c.start, c.end, c.last = c.idle[:], 0, 0, 0
	}
	return c.in[c.end:]
}

func (c *localChannel) SetReadDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// leave says farewell, and closes the channel.
func (c *localChannel) leave() {
	c.mu.Lock()
	if !c.closed && len(c.waiting) == 0 && c.taken == 0 {
		c.direct.TryWrite([]byte{localBye, 0, 0, 0})
	}
	c.mu.Unlock()
	c.close()
}

// close ends the channel; what waits is lost. Reads and writes fail from then on.
func (c *localChannel) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	c.waiting = nil
	_ = c.conn.SetDeadline(time.Unix(1, 0)) // a write under way holds up the close otherwise
	_ = c.conn.Close()
	if c.watch != nil {
		c.watch.Close()
	}
	notify(c.wake)
}
