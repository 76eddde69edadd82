//go:build !js

package rtc

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"

	"github.com/chatixia-ai/mesh/internal/hostaddr"
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
	from   []netip.Addr // see sources
	asked  time.Time    // for both
}

// system is a Network, as opposed to a network in memory.
type system interface {
	sources() []netip.Addr
	forget()
}

// NewNetwork returns a Network whose lookups end when ctx does. It fails if the host's addresses cannot be
// listed.
func NewNetwork(ctx context.Context) (*Network, error) {
	n, err := stdnet.NewNet()
	if err != nil {
		return nil, err
	}
	return &Network{Net: n, latest: n, from: hostaddr.Sources(), asked: time.Now(), ctx: ctx, lookup: net.DefaultResolver.LookupNetIP}, nil
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
	if err := n.refreshLocked(); err != nil {
		return nil, err
	}
	return n.latest.Interfaces()
}

// sources returns the addresses from which the host sends to the Internet, as they were a second ago at most.
func (n *Network) sources() []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	_ = n.refreshLocked() // Interfaces reports it
	return n.from
}

func (n *Network) refreshLocked() error {
	if time.Since(n.asked) < interfacesAge {
		return nil
	}
	latest, err := stdnet.NewNet()
	if err != nil {
		return err
	}
	n.latest, n.from, n.asked = latest, hostaddr.Sources(), time.Now()
	return nil
}

// forget makes the next question about addresses one for the system.
func (n *Network) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = time.Time{}
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

// fastUDP is what pion prefers for its packets, since it needs no allocation.
type fastUDP interface {
	transport.UDPConn
	ice.AddrPortReaderWriter
}

// fast gives a socket the methods of fastUDP.
func fast(c transport.UDPConn) fastUDP {
	switch c := c.(type) {
	case fastUDP:
		return c
	case *net.UDPConn:
		return systemUDP{c}
	}
	return slowUDP{c}
}

// systemUDP is a socket of systems for which directly does nothing.
type systemUDP struct {
	*net.UDPConn
}

func (c systemUDP) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	return c.ReadFromUDPAddrPort(b)
}

func (c systemUDP) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return c.WriteToUDPAddrPort(b, to)
}

// slowUDP is a socket of a test's network.
type slowUDP struct {
	transport.UDPConn
}

func (c slowUDP) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	n, from, err := c.ReadFrom(b)
	u, _ := from.(*net.UDPAddr)
	return n, u.AddrPort(), err
}

func (c slowUDP) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return c.WriteTo(b, net.UDPAddrFromAddrPort(to))
}
