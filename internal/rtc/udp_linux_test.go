//go:build linux && (amd64 || arm64)

package rtc

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/transport/v5"
)

// udpSocket is one of Network's, bound to an address. A system without IPv6 has nothing to test there.
func udpSocket(t *testing.T, ip net.IP, zone string) (c transport.UDPConn, at netip.AddrPort) {
	t.Helper()
	n, err := NewNetwork(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, err = n.ListenUDP("udp", &net.UDPAddr{IP: ip, Zone: zone})
	if ip.To4() == nil && (errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL)) {
		t.Skip("this system has no IPv6")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	at = c.LocalAddr().(*net.UDPAddr).AddrPort()
	return c, netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// TestDirectUDP: packets pass, with the right addresses, whatever they hold, and waits end as with any socket.
func TestDirectUDP(t *testing.T) {
	t.Run("IPv4", func(t *testing.T) {
		testDirectUDP(t, net.IPv4(127, 0, 0, 1), netip.MustParseAddrPort("[::1]:9"))
	})
	t.Run("IPv6", func(t *testing.T) {
		testDirectUDP(t, net.IPv6loopback, netip.MustParseAddrPort("127.0.0.1:9"))
	})
}

// testDirectUDP tests sockets bound to an address; other is of the other kind.
func testDirectUDP(t *testing.T, ip net.IP, other netip.AddrPort) {
	ca, a := udpSocket(t, ip, "")
	cb, b := udpSocket(t, ip, "")
	near, far := ca.(ice.AddrPortReaderWriter), cb.(ice.AddrPortReaderWriter)
	buf := make([]byte, 70<<10)
	for _, size := range []int{0, 1, 1200, 60000} {
		to := b
		if size == 1 {
			to = netip.AddrPortFrom(netip.AddrFrom16(b.Addr().As16()), b.Port()) // IPv4 within IPv6
		}
		text := make([]byte, size)
		for i := range text {
			text[i] = byte(i)
		}
		if n, err := near.WriteToAddrPort(text, to); n != size || err != nil {
			t.Fatalf("%d bytes: %d, %v", size, n, err)
		}
		n, from, err := far.ReadFromAddrPort(buf)
		if err != nil || string(buf[:n]) != string(text) || from != a {
			t.Fatalf("%d bytes: %d bytes from %v, want %v; %v", size, n, from, a, err)
		}
	}
	if _, err := near.WriteToAddrPort(buf, b); !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("too large a packet: %v", err)
	}
	for _, to := range []netip.AddrPort{other, netip.AddrPortFrom(netip.Addr{}, b.Port())} {
		if _, err := near.WriteToAddrPort(nil, to); err == nil {
			t.Errorf("a packet from %v went to %v", a, to)
		}
	}
	if err := cb.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := far.ReadFromAddrPort(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
	if err := cb.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, _, err := far.ReadFromAddrPort(buf)
		ended <- err
	}()
	if err := cb.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a read that waited for a socket that was closed: %v", err)
	}
	if _, err := far.WriteToAddrPort(nil, a); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write to a closed socket: %v", err)
	}
}

// TestDirectUDPZone: a link-local address means something only with its interface.
func TestDirectUDPZone(t *testing.T) {
	ip, zone := linkLocal(t)
	ca, a := udpSocket(t, ip, zone)
	cb, b := udpSocket(t, ip, zone)
	near, far := ca.(ice.AddrPortReaderWriter), cb.(ice.AddrPortReaderWriter)
	for _, to := range []netip.AddrPort{b, netip.AddrPortFrom(b.Addr().WithZone(""), b.Port())} {
		if _, err := near.WriteToAddrPort([]byte("x"), to); err != nil {
			t.Fatalf("to %v: %v", to, err)
		}
		buf := make([]byte, 10)
		if n, from, err := far.ReadFromAddrPort(buf); n != 1 || from != a || err != nil {
			t.Errorf("%d bytes from %v, want %v; %v", n, from, a, err)
		}
	}
	elsewhere := netip.AddrPortFrom(b.Addr().WithZone("1073741824"), b.Port())
	if _, err := near.WriteToAddrPort([]byte("x"), elsewhere); err == nil {
		t.Errorf("a packet to %v left from %v", elsewhere, a)
	}
}

func linkLocal(t *testing.T) (ip net.IP, zone string) {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() == nil && n.IP.IsLinkLocalUnicast() {
				return n.IP, i.Name
			}
		}
	}
	t.Skip("this host has no link-local address")
	return nil, ""
}

// TestZone: the name of an interface is asked for once, and where it has none its number is the zone.
func TestZone(t *testing.T) {
	all, err := net.Interfaces()
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	var z zone
	for _, i := range all {
		if got := z.of(uint32(i.Index)); got != i.Name {
			t.Errorf("interface %d is called %q, not %q", i.Index, i.Name, got)
		}
	}
	last := z.index
	if got := z.of(1 << 30); got != "1073741824" || z.index != last {
		t.Errorf("an unknown interface is called %q, and was remembered in place of %d: %d", got, last, z.index)
	}
	z.name = "remembered"
	if got := z.of(last); got != "remembered" {
		t.Errorf("it was asked for again: %q", got)
	}
}

// TestDirectUDPNotMDNS: mDNS needs the system's own kind of socket.
func TestDirectUDPNotMDNS(t *testing.T) {
	n, err := NewNetwork(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, err := n.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(224, 0, 0, 0), Port: 5353}) // as pion does
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, plain := c.(*net.UDPConn); !plain {
		t.Errorf("the socket of mDNS is a %T", c)
	}
}

// TestMuxIsDirect: the sockets of a shared port are of this kind.
func TestMuxIsDirect(t *testing.T) {
	m, _ := loopbackMux(t)
	for _, s := range m.sockets {
		if _, direct := s.udp.(*directUDP); !direct {
			t.Errorf("the socket at %v is a %T", s.udp.LocalAddr(), s.udp)
		}
	}
}
