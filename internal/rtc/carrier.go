//go:build !js

package rtc

import (
	"sync/atomic"
	"time"
)

// A carrier carries the slices of a link: by a data channel, and from a move on by a socket on the host. Each direction moves by itself.
type carrier struct {
	first dataChannel // over WebRTC
	over  atomic.Bool // everything on it was read by the other end
	in    dataChannel // that is read; the reader's
	local atomic.Pointer[localChannel]

	onLow func()
}

func newCarrier(first dataChannel) *carrier { return &carrier{first: first, in: first} }

// moveOut has what is written go over a socket. Only the writer calls it.
func (c *carrier) moveOut(l *localChannel) {
	l.OnBufferedAmountLow(c.onLow)
	l.SetBufferedAmountLowThreshold(localBudget / 2)
	c.first.SetBufferedAmountLowThreshold(0)
	c.local.Store(l)
}

// moveIn has what is read come from a socket. Only the reader calls it.
func (c *carrier) moveIn(l *localChannel) { c.in = l }

// retire notes that the data channel is of no use any more.
func (c *carrier) retire() { c.over.Store(true) }

func (c *carrier) ReadDataChannel(b []byte) (n int, text bool, err error) {
	return c.in.ReadDataChannel(b)
}

func (c *carrier) WriteDataChannel(b []byte, text bool) (int, error) {
	if l := c.local.Load(); l != nil {
		return l.WriteDataChannel(b, text)
	}
	return c.first.WriteDataChannel(b, text)
}

// BufferedAmount returns how many bytes the other end has not acknowledged, and how many wait for the socket.
func (c *carrier) BufferedAmount() (n uint64) {
	l := c.local.Load()
	if l != nil {
		n = l.BufferedAmount()
	}
	if l == nil || !c.over.Load() {
		n += c.first.BufferedAmount()
	}
	return n
}

// SetBufferedAmountLowThreshold has the writer told when so little is left. After a move the data channel tells when nothing is.
func (c *carrier) SetBufferedAmountLowThreshold(n uint64) {
	if l := c.local.Load(); l != nil {
		l.SetBufferedAmountLowThreshold(n)
		return
	}
	c.first.SetBufferedAmountLowThreshold(n)
}

func (c *carrier) OnBufferedAmountLow(f func()) {
	c.onLow = f
	c.first.OnBufferedAmountLow(f)
}

func (c *carrier) SetReadDeadline(t time.Time) error { return c.in.SetReadDeadline(t) }
