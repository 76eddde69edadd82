//go:build !js

package rtc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/pion/logging"
	"github.com/pion/stun/v4"
	"github.com/pion/transport/v5"
	"github.com/rs/zerolog"
)

const (
	// maxAddresses bounds the addresses whose packets are a connection's: those that pion may write to.
	maxAddresses = maxRemoteCandidates + maxSources
	// maxDatagram is longer than any packet: on Windows it is an error to read a part of one.
	maxDatagram = 64 << 10
	// readPause keeps a socket that fails again and again from keeping a core busy.
	readPause = time.Second
	// goneFor is how long a socket outlives its address. A path that is cut for longer needs an ICE restart anyway.
	goneFor = 30 * time.Second
)

// mux shares one UDP port among connections; with doublingMux it is an ice.UDPMux. Unlike in pion's own, what waits for a
// connection is bounded, a check goes to the session that it names, wherever it comes from, and a peer does not get the
// packets of another one whose address it announces.
type mux struct {
	host *host
	net  transport.Net
	port int
	log  zerolog.Logger
	pion logging.LeveledLogger
	ctx  context.Context // ends with the mux
	stop context.CancelFunc

	readers sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	sockets []*muxSocket        // of the host's addresses, the best first
	gone    []*muxSocket        // of addresses that the host no longer has
	failed  map[netip.Addr]bool // the addresses at which it could not listen
}

func newMux(cfg Config, h *host, loggers *pionLoggers) (*mux, error) {
	m := &mux{host: h, net: cfg.net, port: cfg.UDPPort, log: cfg.Log, pion: loggers.NewLogger("udpmux")}
	m.ctx, m.stop = context.WithCancel(context.Background())
	if err := m.follow(); err != nil {
		_ = m.Close()
		port := "any UDP port"
		if cfg.UDPPort != AnyUDPPort {
			port = fmt.Sprintf("UDP port %d", cfg.UDPPort)
		}
		return nil, fmt.Errorf("listen on %s: %w", port, err)
	}
	return m, nil
}

// follow opens the port at each address of the host, rather than at the wildcard address: a socket of that kind sends
// from an address that the system chooses, which ICE takes for another peer's. For AnyUDPPort the system picks a port
// for each address. An address at which the port cannot be opened is left out; the error is about the first one for
// which it is not the address that is to blame. The sockets of addresses that are gone are kept for a while, with their
// connections: an address may come back.
func (m *mux) follow() error {
	addrs, _, err := m.host.addrs()
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return net.ErrClosed
	}
	had := make(map[netip.Addr]*muxSocket)
	for _, s := range slices.Concat(m.gone, m.sockets) {
		had[s.ip] = s
	}
	m.sockets = nil
	failed := make(map[netip.Addr]bool)
	for _, a := range addrs {
		s := had[a.IP]
		if s == nil {
			var why error
			if s, why = m.listenLocked(a.IP); why != nil {
				failed[a.IP] = true
				m.notListeningLocked(a.IP, why)
				if err == nil && !unavailable(why) {
					err = why
				}
				continue
			}
		}
		delete(had, a.IP)
		s.goneAt = time.Time{}
		m.sockets = append(m.sockets, s)
	}
	m.failed = failed
	m.leaveLocked(had)
	return err
}

// leaveLocked closes the sockets of addresses that have been gone for long enough.
func (m *mux) leaveLocked(sockets map[netip.Addr]*muxSocket) {
	m.gone = nil
	for _, s := range sockets {
		if s.goneAt.IsZero() {
			s.goneAt = time.Now()
		}
		// The zone of an address is another one when its interface comes back.
		if s.ip.Zone() == "" && time.Since(s.goneAt) < goneFor && len(m.gone) < maxHostAddrs {
			m.gone = append(m.gone, s)
		} else {
			_ = s.close()
		}
	}
}

// notListeningLocked logs that there is an address at which the port cannot be opened, once. At the start what is not the address's
// fault is the error of newMux instead.
func (m *mux) notListeningLocked(ip netip.Addr, why error) {
	if starting := m.failed == nil; !m.failed[ip] && (unavailable(why) || !starting) {
		m.log.Warn().Err(why).Stringer("address", ip).Msg("cannot listen at an address of this host; leaving it out for now")
	}
}

func (m *mux) listenLocked(ip netip.Addr) (*muxSocket, error) {
	c, err := m.net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, uint16(max(m.port, 0)))))
	if err != nil {
		return nil, err
	}
	s := newMuxSocket(c, m.pion)
	s.ip = ip
	m.readers.Go(func() { s.read(m.ctx) })
	return s, nil
}

// unsettled reports whether follow has to be called again although no address comes or goes.
func (m *mux) unsettled() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.failed)+len(m.gone) > 0
}

// all returns the sockets, those of addresses that are gone included.
func (m *mux) all() []*muxSocket {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Concat(m.sockets, m.gone)
}

// unavailable reports whether a socket could not be opened because of its address: it is gone, or of IPv6 and not known
// yet to be no other host's.
func unavailable(err error) bool {
	const wsaNotAvailable, wsaInvalid = syscall.Errno(10049), syscall.Errno(10022) // what Windows says
	for _, e := range []error{syscall.EADDRNOTAVAIL, syscall.EINVAL, syscall.ENODEV, wsaNotAvailable, wsaInvalid} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// conn returns the connection of the ICE session with a ufrag at one of the listen addresses. pion asks once for
// each, see doublingMux; that there is one already is an error.
func (m *mux) conn(ufrag string, addr net.Addr, twice *doubler) (net.PacketConn, error) {
	for _, s := range m.all() {
		if s.udp.LocalAddr().String() == addr.String() {
			return s.open(ufrag, twice)
		}
	}
	return nil, fmt.Errorf("the shared UDP port is none of %s", addr)
}

// RemoveConnByUfrag closes the connections of an ICE session.
func (m *mux) RemoveConnByUfrag(ufrag string) {
	for _, s := range m.all() {
		s.mu.Lock()
		c := s.conns[ufrag]
		s.mu.Unlock()
		if c != nil {
			_ = c.Close()
		}
	}
}

// GetListenAddresses returns the addresses of the sockets, but for those that the host no longer has.
func (m *mux) GetListenAddresses() []net.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	addrs := make([]net.Addr, len(m.sockets))
	for i, s := range m.sockets {
		addrs[i] = s.udp.LocalAddr()
	}
	return addrs
}

// Close closes the sockets and all connections, and waits for the readers.
func (m *mux) Close() error {
	m.stop()
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	var errs []error
	for _, s := range m.all() {
		errs = append(errs, s.close())
	}
	m.readers.Wait()
	return errors.Join(errs...)
}

// muxSocket is one socket of a mux.
type muxSocket struct {
	ip     netip.Addr // at which it listens
	goneAt time.Time  // when the host was seen to have the address no longer; guarded by the mux's mu

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

func (s *muxSocket) open(ufrag string, twice *doubler) (net.PacketConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		return nil, net.ErrClosed
	}
	if s.conns[ufrag] != nil {
		return nil, errors.New("the ICE session has a connection at this address already")
	}
	c := &muxConn{socket: s, ufrag: ufrag, twice: twice, addrs: make(map[netip.AddrPort]struct{})}
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
