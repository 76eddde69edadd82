//go:build !js

package rtc

import (
	"net"
	"net/netip"
	"time"
)

// muxConn is the connection of one generation of an ICE session at one address of the host. It reports closing by
// net.ErrClosed, which to pion ends a read quietly, and is a lost packet when written. An ICE restart closes the
// addresses in use while SCTP may be writing to one; io.ErrClosedPipe, which pion's own mux returns, would end the SCTP
// association, and with it the link that the restart was to save.
type muxConn struct {
	socket  *muxSocket
	ufrag   string
	sources sources
	twice   *doubler
	addrs   map[netip.AddrPort]struct{} // of which it is the owner; guarded by socket.mu
	packets packets
}

func (c *muxConn) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) { return c.packets.take(b) }

func (c *muxConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.packets.take(b)
	if err != nil {
		return 0, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

func (c *muxConn) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if !c.socket.claim(c, canonical(to)) {
		return 0, net.ErrClosed
	}
	if c.twice.again(b) {
		_, _ = c.socket.udp.WriteToAddrPort(b, to)
	}
	return c.socket.udp.WriteToAddrPort(b, to)
}

func (c *muxConn) WriteTo(b []byte, to net.Addr) (int, error) {
	u, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, net.InvalidAddrError("not a UDP address")
	}
	return c.WriteToAddrPort(b, u.AddrPort())
}

// Close ends waiting reads. It leaves the socket open.
func (c *muxConn) Close() error {
	c.socket.release(c)
	c.packets.close()
	return nil
}

func (c *muxConn) LocalAddr() net.Addr { return c.socket.udp.LocalAddr() }

// Deadlines have no effect, as with pion's own mux: others write to the socket, too, and Close ends a read.

func (c *muxConn) SetDeadline(time.Time) error      { return nil }
func (c *muxConn) SetReadDeadline(time.Time) error  { return nil }
func (c *muxConn) SetWriteDeadline(time.Time) error { return nil }
