package rtc

import (
	"errors"
	"io"
	"net"
	"net/netip"

	"github.com/pion/ice/v4"
	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"
)

// network is the system's network. It differs from pion's in two ways.
type network struct {
	*stdnet.Net
}

func newNetwork() (transport.Net, error) {
	n, err := stdnet.NewNet()
	if err != nil {
		return nil, err
	}
	return network{n}, nil
}

// Interfaces asks the system each time. pion's own Net remembers the addresses that there were when the
// connection was made, so that an ICE restart could not move it to a new one.
func (network) Interfaces() ([]*transport.Interface, error) {
	n, err := stdnet.NewNet()
	if err != nil {
		return nil, err
	}
	return n.Interfaces()
}

// ListenUDP asks for larger socket buffers.
func (n network) ListenUDP(netw string, addr *net.UDPAddr) (transport.UDPConn, error) {
	c, err := n.Net.ListenUDP(netw, addr)
	if err == nil {
		_ = c.SetReadBuffer(socketBuffer)
		_ = c.SetWriteBuffer(socketBuffer)
	}
	return c, err
}

// mux shares one UDP port among connections.
//
// An ICE restart closes the addresses in use while SCTP may be writing to one. A write that fails with
// net.ErrClosed is a lost packet to pion, but io.ErrClosedPipe, which pion's own mux returns, ends the
// SCTP association, and with it the link that the restart was to save.
type mux struct {
	*ice.MultiUDPMuxDefault
}

func (m mux) GetConn(ufrag string, addr net.Addr) (net.PacketConn, error) {
	c, err := m.MultiUDPMuxDefault.GetConn(ufrag, addr)
	if err != nil {
		return nil, err
	}
	if fast, ok := c.(fastConn); ok {
		return fastMuxConn{fast}, nil
	}
	return muxConn{c}, nil
}

type muxConn struct {
	net.PacketConn
}

func (c muxConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	n, err := c.PacketConn.WriteTo(b, addr)
	return n, lostPacket(err)
}

// fastConn is what pion prefers for its packets, since it needs no allocation.
type fastConn interface {
	net.PacketConn
	ice.AddrPortReaderWriter
}

type fastMuxConn struct {
	fastConn
}

func (c fastMuxConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	n, err := c.fastConn.WriteTo(b, addr)
	return n, lostPacket(err)
}

func (c fastMuxConn) WriteToAddrPort(b []byte, addr netip.AddrPort) (int, error) {
	n, err := c.fastConn.WriteToAddrPort(b, addr)
	return n, lostPacket(err)
}

func lostPacket(err error) error {
	if errors.Is(err, io.ErrClosedPipe) {
		return net.ErrClosed
	}
	return err
}
