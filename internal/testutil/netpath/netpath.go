// Package netpath is a network path in user space: a UDP relay on the loopback interface with delay, a bounded line, loss,
// reordering and duplication. Tests and benchmarks put it between two ends, since loopback has nothing of the kind.
package netpath

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Conditions are those of one direction of a path. The zero value is a path without delay and loss, as fast as it goes.
type Conditions struct {
	Delay     time.Duration // from one end to the other, behind the line
	Rate      float64       // of the line in bits per second, with the headers of IP and UDP; 0: as fast as it goes
	Queue     int           // bytes that wait in front of the line, beyond which packets are dropped; 0: 512 KiB
	Loss      float64       // the part of all packets that is lost at random, 0 to 1
	Reorder   float64       // the part of all packets that arrives late by another Delay
	Duplicate float64       // the part of all packets that arrives twice, the second time a Delay later
}

const (
	defaultQueue = 512 << 10
	// overhead is what IPv4 and UDP add to each packet on a line.
	overhead = 28
	// maxPacket is more than any packet of WebRTC or QUIC.
	maxPacket = 2048
	// socketBuffer keeps the system from dropping what the path should.
	socketBuffer = 4 << 20
)

// A Path joins two ends, 0 and 1. Each sees the other at an address of the path's own. Its methods may be called
// concurrently.
type Path struct {
	sockets [2]*net.UDPConn                   // sockets[i] stands for end i
	ends    [2]atomic.Pointer[netip.AddrPort] // where end i really is; nil if that is not known yet
	lines   [2]*line                          // lines[i] leads from end i to the other
	beside  bool                              // the lines are those of another path
	work    sync.WaitGroup
}

// New opens a path with the same conditions both ways. The seed decides which packets are lost.
func New(c Conditions, seed uint64) (*Path, error) {
	p := &Path{}
	for i := range p.lines {
		l := newLine(c, rand.New(rand.NewPCG(seed, uint64(i))))
		p.lines[i] = l
		p.work.Go(l.run)
	}
	return p, p.open()
}

// Beside opens a path for two further ends, whose packets share the lines of p with those of its own ends. Close it first.
func (p *Path) Beside() (*Path, error) {
	other := &Path{lines: p.lines, beside: true}
	return other, other.open()
}

// open opens the sockets and begins to read. If it fails, the path is closed.
func (p *Path) open() error {
	for i := range p.sockets {
		s, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return errors.Join(err, p.Close())
		}
		_, _ = s.SetReadBuffer(socketBuffer), s.SetWriteBuffer(socketBuffer)
		p.sockets[i] = s
	}
	for i := range p.sockets {
		p.work.Go(func() { p.read(i) })
	}
	return nil
}

// Addr returns the address at which the other end sees end i.
func (p *Path) Addr(i int) netip.AddrPort { return p.sockets[i].LocalAddr().(*net.UDPAddr).AddrPort() }

// Join says where end i really is.
func (p *Path) Join(i int, addr netip.AddrPort) { p.ends[i].Store(&addr) }

// Set changes the conditions of both directions from now on.
func (p *Path) Set(c Conditions) {
	for i := range p.lines {
		p.SetOne(i, c)
	}
}

// SetOne changes the conditions of the direction from end i to the other from now on.
func (p *Path) SetOne(i int, c Conditions) { p.lines[i].set(c) }

// Counts returns how many packets of end i have been taken, and how many of them were lost: at random, and for want of
// room in the queue.
func (p *Path) Counts(i int) (taken, lost, dropped int) {
	l := p.lines[i]
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.taken, l.lost, l.dropped
}

// Doubled returns how many packets of end i have been sent twice.
func (p *Path) Doubled(i int) int {
	l := p.lines[i]
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.doubled
}

// Close ends the path.
func (p *Path) Close() error {
	var all error
	for _, s := range p.sockets {
		if s != nil {
			all = errors.Join(all, s.Close())
		}
	}
	if !p.beside {
		for _, l := range p.lines {
			l.close()
		}
	}
	p.work.Wait()
	return all
}

// read takes what end i sends: it sends it to the socket that stands for the other end.
func (p *Path) read(i int) {
	buf := make([]byte, maxPacket)
	deliver := func(b []byte) { p.deliver(1-i, b) }
	for {
		n, from, err := p.sockets[1-i].ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // such as the notice that a packet could not be delivered
		}
		if end := p.ends[i].Load(); end != nil && *end == netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) {
			p.lines[i].take(buf[:n], deliver)
		}
	}
}

// deliver gives end i a packet, from the address of the other.
func (p *Path) deliver(i int, b []byte) {
	if end := p.ends[i].Load(); end != nil {
		_, _ = p.sockets[1-i].WriteToUDPAddrPort(b, *end) // like any packet it may get lost
	}
}
