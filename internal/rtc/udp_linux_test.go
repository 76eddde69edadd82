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

// udpSocket is one of network's, on a loopback address.
func udpSocket(t *testing.T) (c transport.UDPConn, at netip.AddrPort) {
	t.Helper()
	n, err := NewNetwork(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, err = n.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
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
	ca, a := udpSocket(t)
	cb, b := udpSocket(t)
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
	if _, err := near.WriteToAddrPort(nil, netip.MustParseAddrPort("[::1]:9")); err == nil {
		t.Error("a packet went to an IPv6 address")
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

// TestDirectUDPOnlyIPv4: an IPv6 address may have a zone.
func TestDirectUDPOnlyIPv4(t *testing.T) {
	n, err := NewNetwork(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, err := n.ListenUDP("udp6", nil)
	if errors.Is(err, syscall.EAFNOSUPPORT) {
		t.Skip("this system has no IPv6")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, direct := c.(ice.AddrPortReaderWriter); direct {
		t.Error("a socket for IPv6 is taken for one of IPv4")
	}
}
