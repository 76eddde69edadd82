//go:build !js

package rtc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"
)

const (
	// lookupTimeout bounds the lookup of a STUN or TURN server's addresses.
	lookupTimeout = 5 * time.Second
	// interfacesAge is how old a list of the host's addresses may be. pion asks three times for each
	// connection, which took a tenth of the CPU time of joining a mesh. An ICE restart comes seconds after
	// what makes it necessary.
	interfacesAge = time.Second
)

// Network is the system's network. Unlike pion's, its lookups can be cancelled, it notices new addresses, its
// sockets have large buffers, and on Linux their packets take fewer system calls. It is exported for benchmarks,
// as [Tune] is.
type Network struct {
	*stdnet.Net
	ctx    context.Context // ends lookups
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)

	mu     sync.Mutex
	latest *stdnet.Net
	asked  time.Time // for latest
}

// NewNetwork returns a Network whose lookups end when ctx does. It fails if the host's addresses cannot be
// listed.
func NewNetwork(ctx context.Context) (*Network, error) {
	n, err := stdnet.NewNet()
	if err != nil {
		return nil, err
	}
	return &Network{Net: n, latest: n, asked: time.Now(), ctx: ctx, lookup: net.DefaultResolver.LookupNetIP}, nil
}

// ResolveUDPAddr blocks for 5 s at most, and no longer than the network's context lasts. A connection does not
// close before its lookups have ended, and pion's own last until the name server responds.
func (n *Network) ResolveUDPAddr(netw, address string) (*net.UDPAddr, error) {
	addr, err := n.resolve(netw, address)
	if err != nil {
		return nil, err
	}
	return net.UDPAddrFromAddrPort(addr), nil
}

// ResolveTCPAddr is ResolveUDPAddr for TURN servers that are reached by TCP.
func (n *Network) ResolveTCPAddr(netw, address string) (*net.TCPAddr, error) {
	addr, err := n.resolve(netw, address)
	if err != nil {
		return nil, err
	}
	return net.TCPAddrFromAddrPort(addr), nil
}

func (n *Network) resolve(netw, address string) (netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	ctx, cancel := context.WithTimeout(n.ctx, lookupTimeout)
	defer cancel()
	port, err := net.DefaultResolver.LookupPort(ctx, netw, service)
	if err != nil {
		return netip.AddrPort{}, err
	}
	addrs, err := n.lookup(ctx, "ip"+strings.TrimLeft(netw, "udtcp"), host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if len(addrs) == 0 {
		return netip.AddrPort{}, fmt.Errorf("no address of %s", host)
	}
	return netip.AddrPortFrom(addrs[0].Unmap(), uint16(port)), nil
}

// Interfaces returns the host's addresses, as they were a second ago at most. pion's own Net keeps those of the
// time when it was made, so that an ICE restart could not move a connection to a new one.
func (n *Network) Interfaces() ([]*transport.Interface, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if time.Since(n.asked) >= interfacesAge {
		latest, err := stdnet.NewNet()
		if err != nil {
			return nil, err
		}
		n.latest, n.asked = latest, time.Now()
	}
	return n.latest.Interfaces()
}

// ListenUDP opens a socket that asks for buffers of SocketBuffer bytes.
func (n *Network) ListenUDP(netw string, addr *net.UDPAddr) (transport.UDPConn, error) {
	c, err := n.Net.ListenUDP(netw, addr)
	if err != nil {
		return nil, err
	}
	_ = c.SetReadBuffer(SocketBuffer)
	_ = c.SetWriteBuffer(SocketBuffer)
	return directly(c), nil
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
		return fastMuxConn{fast, &sources{}}, nil
	}
	return muxConn{c}, nil
}

// muxConn is of a socket without the methods of fastConn, which only a test's network makes.
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

// fastMuxConn is of one session and one ICE generation, so that its sources are, too.
type fastMuxConn struct {
	fastConn
	sources *sources
}

func (c fastMuxConn) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		n, from, err := c.fastConn.ReadFromAddrPort(b)
		if err != nil || c.sources.admits(b[:n], from) {
			return n, from, err
		}
	}
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
