//go:build !js

package rtc

import (
	"io"
	"os"
	"sync"
	"time"
)

// A memChannel is one end of a data channel in memory, for a [Room]. What is written and not yet read at the other end counts as
// not acknowledged.
type memChannel struct {
	far  *memChannel
	path *memPath
	wake chan struct{} // buffered 1: there may be something to read, or the end

	mu       sync.Mutex
	in       []memFrame
	unacked  uint64 // bytes in far.in
	low      uint64
	onLow    func()
	deadline bool // reads are to fail
	closed   bool
}

type memFrame struct {
	b    []byte
	text bool
	at   time.Time // when it arrives
}

func newMemChannels(path *memPath) (a, b *memChannel) {
	a = &memChannel{path: path, wake: make(chan struct{}, 1), onLow: func() {}}
	b = &memChannel{path: path, wake: make(chan struct{}, 1), onLow: func() {}}
	a.far, b.far = b, a
	return a, b
}

func (c *memChannel) WriteDataChannel(b []byte, text bool) (int, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return 0, io.ErrClosedPipe
	}
	c.unacked += uint64(len(b))
	c.mu.Unlock()
	c.far.arrive(memFrame{append([]byte(nil), b...), text, time.Now().Add(c.path.delayed())})
	return len(b), nil
}

func (c *memChannel) arrive(f memFrame) {
	c.mu.Lock()
	if !c.closed {
		c.in = append(c.in, f)
	}
	c.mu.Unlock()
	notify(c.wake)
}

func (c *memChannel) ReadDataChannel(b []byte) (n int, text bool, err error) {
	for {
		n, text, wait, err := c.next(b)
		if wait == 0 {
			return n, text, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-c.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// forever is how long a read waits if nothing is on its way.
const forever = 365 * 24 * time.Hour

// next returns the next frame, or an error, or how long to wait.
func (c *memChannel) next(b []byte) (n int, text bool, wait time.Duration, err error) {
	c.mu.Lock()
	f := memFrame{}
	switch {
	case c.deadline:
		err = os.ErrDeadlineExceeded
	case len(c.in) == 0 && c.closed:
		err = io.EOF
	case len(c.in) == 0 || c.path.isCut() && !c.closed:
		wait = forever
	default:
		f = c.in[0]
		wait = max(time.Until(f.at), 0)
		if wait == 0 && len(f.b) > len(b) {
			err = io.ErrShortBuffer
		} else if wait == 0 {
			c.in[0] = memFrame{}
			c.in = c.in[1:]
		}
	}
	c.mu.Unlock()
	if wait > 0 || err != nil {
		return 0, false, wait, err
	}
	c.far.acknowledge(len(f.b))
	return copy(b, f.b), f.text, 0, nil
}

// acknowledge notes that the other end has read bytes.
func (c *memChannel) acknowledge(n int) {
	c.mu.Lock()
	before := c.unacked
	c.unacked -= uint64(n)
	fell := before > c.low && c.unacked <= c.low
	onLow := c.onLow
	c.mu.Unlock()
	if fell {
		onLow()
	}
}

func (c *memChannel) BufferedAmount() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unacked
}

func (c *memChannel) SetBufferedAmountLowThreshold(n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.low = n
}

func (c *memChannel) OnBufferedAmountLow(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onLow = f
}

// SetReadDeadline has reads fail from now on, whatever the time, which is what it is called for.
func (c *memChannel) SetReadDeadline(time.Time) error {
	c.mu.Lock()
	c.deadline = true
	c.mu.Unlock()
	notify(c.wake)
	return nil
}

// close ends this end: what has arrived can still be read.
func (c *memChannel) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	notify(c.wake)
}
