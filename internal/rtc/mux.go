//go:build !js

package rtc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/logging"
	"github.com/pion/stun/v4"
	"github.com/pion/transport/v5"
)

const (
	// maxAddresses bounds the addresses whose packets are a connection's: those that pion may write to.
	maxAddresses = maxRemoteCandidates + maxSources
	// maxDatagram is longer than any packet: on Windows it is an error to read a part of one.
	maxDatagram = 64 << 10
	// readPause keeps a socket that fails again and again from keeping a core busy.
	readPause = time.Second
)

// mux shares one UDP port among connections (ice.UDPMux). Unlike in pion's own, what waits for a connection is bounded,
// a check goes to the session that it names, wherever it comes from, and a peer does not get the packets of another one
// whose address it announces.
type mux struct {
	sockets []*muxSocket
	stop    context.CancelFunc
	readers sync.WaitGroup
}

func newMux(cfg Config, loggers *pionLoggers) (*mux, error) {
	ctx, cancel := context.WithCancel(context.Background())
	m := &mux{stop: cancel}
	if err := m.listen(ctx, cfg, loggers.NewLogger("udpmux")); err != nil {
		_ = m.Close()
		port := "any UDP port"
		if cfg.UDPPort != AnyUDPPort {
			port = fmt.Sprintf("UDP port %d", cfg.UDPPort)
		}
		return nil, fmt.Errorf("listen on %s: %w", port, err)
	}
	return m, nil
}

// listen opens the port at each address, rather than at the wildcard address: a socket of that kind sends from an
// address that the system chooses, which ICE takes for another peer's. For AnyUDPPort the system picks a port for each
// address.
func (m *mux) listen(ctx context.Context, cfg Config, log logging.LeveledLogger) error {
	addrs, err := cfg.hostAddrs()
	if err != nil {
		return err
	}
	if len(addrs) == 0 {
		return fmt.Errorf("no network interface is up (loopback: %t)", !cfg.NoLoopback)
	}
	port := uint16(max(cfg.UDPPort, 0))
	for _, a := range addrs {
		c, err := cfg.net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, port)))
		if err != nil {
			return err
		}
		s := newMuxSocket(c, log)
		m.sockets = append(m.sockets, s)
		m.readers.Go(func() { s.read(ctx) })
	}
	return nil
}

// GetConn returns the connection of the ICE session with a ufrag at one of the listen addresses. pion asks once for
// each; that there is one already is an error.
func (m *mux) GetConn(ufrag string, addr net.Addr) (net.PacketConn, error) {
	for _, s := range m.sockets {
		if s.udp.LocalAddr().String() == addr.String() {
			return s.open(ufrag)
		}
	}
	return nil, fmt.Errorf("the shared UDP port is none of %s", addr)
}

// RemoveConnByUfrag closes the connections of an ICE session.
func (m *mux) RemoveConnByUfrag(ufrag string) {
	for _, s := range m.sockets {
		s.mu.Lock()
		c := s.conns[ufrag]
		s.mu.Unlock()
		if c != nil {
			_ = c.Close()
		}
	}
}

// GetListenAddresses returns the addresses of the sockets.
func (m *mux) GetListenAddresses() []net.Addr {
	addrs := make([]net.Addr, len(m.sockets))
	for i, s := range m.sockets {
		addrs[i] = s.udp.LocalAddr()
	}
	return addrs
}

// Close closes the sockets and all connections, and waits for the readers.
func (m *mux) Close() error {
	m.stop()
	var errs []error
	for _, s := range m.sockets {
		errs = append(errs, s.close())
	}
	m.readers.Wait()
	return errors.Join(errs...)
}

// muxSocket is one socket of a mux.
type muxSocket struct {
	udp   fastUDP
	log   logging.LeveledLogger
	check stun.Message // the last one, for the reader

	mu     sync.Mutex                  // sources.mu may be taken while it is held
	conns  map[string]*muxConn         // by ufrag; nil once the socket is closed
	owners map[netip.AddrPort]*muxConn // the connection that has an address's packets
}

func newMuxSocket(c transport.UDPConn, log logging.LeveledLogger) *muxSocket {
	return &muxSocket{
		udp: fast(c), log: log,
		conns: make(map[string]*muxConn), owners: make(map[netip.AddrPort]*muxConn),
	}
}

// read gives each packet to the connection that it is for, until the socket is closed.
func (s *muxSocket) read(ctx context.Context) {
	b := make([]byte, maxDatagram)
	for {
		n, from, err := s.udp.ReadFromAddrPort(b)
		switch {
		case err == nil:
			s.deliver(b[:n], from)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			s.log.Errorf("Failed to read from %s: %v", s.udp.LocalAddr(), err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(readPause):
			}
		}
	}
}

func (s *muxSocket) deliver(b []byte, from netip.AddrPort) {
	addr := canonical(from)
	if !isCheck(b) {
		if c := s.owner(addr); c != nil {
			c.packets.put(b, from, maxWaiting)
		}
	} else if c := s.checked(b); c != nil && c.sources.admits(b, addr) {
		c.packets.put(b, from, maxWaitingChecks)
	}
}

// owner returns the connection that has the packets of an address, if any.
func (s *muxSocket) owner(addr netip.AddrPort) *muxConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owners[addr]
}

// checked returns the connection of the session that a check names, if any: its USERNAME is "ours:theirs", of the
// ufrags of both sides (RFC 8445, 7.2.2).
func (s *muxSocket) checked(b []byte) *muxConn {
	s.check.Raw = b
	if s.check.Decode() != nil {
		return nil
	}
	name, _ := s.check.Get(stun.AttrUsername)
	ufrag, _, _ := bytes.Cut(name, []byte(":"))
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns[string(ufrag)]
}

func (s *muxSocket) open(ufrag string) (net.PacketConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		return nil, net.ErrClosed
	}
	if s.conns[ufrag] != nil {
		return nil, errors.New("the ICE session has a connection at this address already")
	}
	c := &muxConn{socket: s, ufrag: ufrag, addrs: make(map[netip.AddrPort]struct{})}
	c.packets.init()
	s.conns[ufrag] = c
	return c, nil
}

// claim makes addr one of c's: what comes from there is for c from now on. Another connection loses it only if a check
// has come from there for c, or a peer could announce the address of another one as its own, and get what that one
// sends. It returns false if c is closed.
func (s *muxSocket) claim(c *muxConn, addr netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns[c.ufrag] != c {
		return false
	}
	owner := s.owners[addr]
	if owner == c || len(c.addrs) >= maxAddresses || owner != nil && !c.sources.seenAt(addr) {
		return true
	}
	if owner != nil {
		delete(owner.addrs, addr)
	}
	s.owners[addr] = c
	c.addrs[addr] = struct{}{}
	return true
}

// release forgets c and its addresses.
func (s *muxSocket) release(c *muxConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns[c.ufrag] == c {
		delete(s.conns, c.ufrag)
	}
	for addr := range c.addrs {
		delete(s.owners, addr)
	}
	clear(c.addrs)
}

func (s *muxSocket) close() error {
	s.mu.Lock()
	conns := s.conns
	s.conns, s.owners = nil, nil
	s.mu.Unlock()
	for _, c := range conns {
		c.packets.close()
	}
	return s.udp.Close()
}

// canonical returns the form in which an address is looked up. It has no zone, since candidates have none.
func canonical(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
