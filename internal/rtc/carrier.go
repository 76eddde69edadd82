//go:build !js

package rtc

import (
	"sync/atomic"
	"time"
)

// A carrier carries the messages of a link, or its streams: by a data channel, and from a move on by a socket on the host. Each direction
// moves by itself.
type carrier struct {
	first   atomic.Pointer[dataChannel] // over WebRTC; nil once everything on it was read by the other end
	in, out atomic.Pointer[localChannel]

	low   atomic.Uint64
	onLow func() // set before the writer knows of the carrier
}

func newCarrier(first dataChannel) *carrier {
	c := &carrier{}
	c.first.Store(&first)
	return c
}

// moveOut has what is written go over a socket. Only the writer calls it.
func (c *carrier) moveOut(l *localChannel) {
	l.OnBufferedAmountLow(c.onLow)
	c.out.Store(l)
	c.SetBufferedAmountLowThreshold(c.low.Load())
}

// moveIn has what is read come from a socket. Only the reader calls it.
func (c *carrier) moveIn(l *localChannel) { c.in.Store(l) }

// retire forgets the data channel, with all the memory of its connection: it is of no use any more. What the writer waits for may have come with
// that.
func (c *carrier) retire() {
	c.first.Store(nil)
	c.SetBufferedAmountLowThreshold(c.low.Load())
	c.onLow()
}

func (c *carrier) ReadDataChannel(b []byte) (n int, text bool, err error) {
	if l := c.in.Load(); l != nil {
		return l.ReadDataChannel(b)
	}
	return (*c.first.Load()).ReadDataChannel(b)
}

func (c *carrier) WriteDataChannel(b []byte, text bool) (int, error) {
	if l := c.out.Load(); l != nil {
		return l.WriteDataChannel(b, text)
	}
	return (*c.first.Load()).WriteDataChannel(b, text)
}

// BufferedAmount returns how many bytes the other end has not acknowledged, and how many wait for the socket.
func (c *carrier) BufferedAmount() (n uint64) {
	if l := c.out.Load(); l != nil {
		n = l.BufferedAmount()
	}
	if first := c.first.Load(); first != nil {
		n += (*first).BufferedAmount()
	}
	return n
}

// SetBufferedAmountLowThreshold has the writer told when so little is left, or before: while bytes are on their way by both the data channel
// and the socket, each of them tells when it has half of that.
func (c *carrier) SetBufferedAmountLowThreshold(n uint64) {
	c.low.Store(n)
	first, l := c.first.Load(), c.out.Load()
	if first != nil && l != nil {
		n /= 2
	}
	if l != nil {
		l.SetBufferedAmountLowThreshold(n)
	}
	if first != nil {
		(*first).SetBufferedAmountLowThreshold(n)
	}
}

// OnBufferedAmountLow is called before the writer knows of the carrier.
func (c *carrier) OnBufferedAmountLow(f func()) {
	c.onLow = f
	(*c.first.Load()).OnBufferedAmountLow(f)
}

func (c *carrier) SetReadDeadline(t time.Time) error {
	if l := c.in.Load(); l != nil {
		return l.SetReadDeadline(t)
	}
	if first := c.first.Load(); first != nil {
		return (*first).SetReadDeadline(t)
	}
	return nil // it has moved in this moment, and ends with the socket
}
