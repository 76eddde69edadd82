//go:build !js

package rtc

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/transport/v5"
)

// Each ICE restart has to see the addresses of its moment, but the system is not asked for each question
// that pion has about one connection.
func TestInterfacesAreFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := NewNetwork(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		list := func() *transport.Interface {
			t.Helper()
			all, err := n.Interfaces()
			if err != nil || len(all) == 0 {
				t.Fatal(all, err)
			}
			return all[0]
		}
		first := list()
		if list() != first {
			t.Error("two lists at once")
		}
		<-time.After(interfacesAge)
		if list() == first {
			t.Error("the same list later")
		}
	})
}

// Sockets without the methods of fastUDP get them, whatever they are.
func TestFast(t *testing.T) {
	for name, wrap := range map[string]func(*net.UDPConn) transport.UDPConn{
		"the system's": func(c *net.UDPConn) transport.UDPConn { return c },
		"a wrapped":    func(c *net.UDPConn) transport.UDPConn { return struct{ transport.UDPConn }{c} },
	} {
		near, far := remoteSocket(t), remoteSocket(t)
		c, to := fast(wrap(near)), far.LocalAddr().(*net.UDPAddr).AddrPort()
		if _, err := c.WriteToAddrPort([]byte("there"), to); err != nil {
			t.Fatal(name, err)
		}
		expect(t, far, "there", near)
		writeTo(t, far, "back", near.LocalAddr())
		b := make([]byte, 10)
		n, from, err := c.ReadFromAddrPort(b)
		if string(b[:n]) != "back" || canonical(from) != canonical(to) || err != nil {
			t.Errorf("%s: %q from %v, %v", name, b[:n], from, err)
		}
	}
}
