//go:build linux && (amd64 || arm64)

package rtc

import (
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"

	"github.com/pion/transport/v5"

	"github.com/chatixia-ai/mesh/internal/nowait"
)

// directUDP is a socket whose packets pass through the system calls of package nowait. pion prefers a socket with
// these two methods, since it needs no allocation (ice.AddrPortReaderWriter).
type directUDP struct {
	*net.UDPConn
	raw     syscall.RawConn
	in, out packet
	zone    zone // of the last packet that had one; used with in.mu held
}

// packet is one packet that is being read or written, and its lock makes it one at a time.
type packet struct {
	mu   sync.Mutex
	b    []byte
	n    int
	addr netip.AddrPort
	zone uint32 // of addr
	err  error
	once func(fd uintptr) bool
}

// zone is the name of an interface.
type zone struct {
	index uint32
	name  string
}

// directly returns c as a directUDP, or c itself if it is not bound to one address: mDNS, whose socket is bound
// to all of them, reads control messages with a package that knows only a *net.UDPConn.
func directly(c transport.UDPConn) transport.UDPConn {
	u, ok := c.(*net.UDPConn)
	if !ok {
		return c
	}
	local, ok := u.LocalAddr().(*net.UDPAddr)
	if !ok || local.IP.IsUnspecified() {
		return c
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return c
	}
	d := &directUDP{UDPConn: u, raw: raw}
	d.in.once = func(fd uintptr) bool {
		d.in.n, d.in.addr, d.in.zone, d.in.err = nowait.RecvFrom(fd, d.in.b)
		return d.in.err != nowait.ErrWait
	}
	d.out.once = func(fd uintptr) bool {
		d.out.n, d.out.err = nowait.SendTo(fd, d.out.b, d.out.addr)
		return d.out.err != nowait.ErrWait
	}
	return d
}

func (d *directUDP) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	d.in.mu.Lock()
	defer d.in.mu.Unlock()
	d.in.b = b
	err := d.raw.Read(d.in.once)
	d.in.b = nil
	if err == nil {
		err = d.in.err
	}
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	if d.in.zone != 0 {
		d.in.addr = netip.AddrPortFrom(d.in.addr.Addr().WithZone(d.zone.of(d.in.zone)), d.in.addr.Port())
	}
	return d.in.n, d.in.addr, nil
}

// of returns the name of the interface with this index. It remembers the last one: asking the system takes
// longer than a packet.
func (z *zone) of(index uint32) string {
	if z.index == index {
		return z.name
	}
	i, err := net.InterfaceByIndex(int(index))
	if err != nil {
		return strconv.FormatUint(uint64(index), 10) // also a zone to package net
	}
	*z = zone{index: index, name: i.Name}
	return z.name
}

func (d *directUDP) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	if to.Addr().Zone() != "" || !to.IsValid() {
		return d.UDPConn.WriteToUDPAddrPort(b, to) // knows the numbers of zones, and says what is wrong
	}
	d.out.mu.Lock()
	defer d.out.mu.Unlock()
	d.out.b, d.out.addr = b, to
	err := d.raw.Write(d.out.once)
	d.out.b = nil
	if err == nil {
		err = d.out.err
	}
	if err != nil {
		return 0, err
	}
	return d.out.n, nil
}
