//go:build !js

package rtc

import (
	"net"
	"testing"
)

// mDNS needs the system's own kind of socket, of an address of no interface.
func TestSourcesNotMDNS(t *testing.T) {
	n, err := NewNetwork(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for ip, bound := range map[string]bool{"127.0.0.1": true, "0.0.0.0": false, "224.0.0.0": false} {
		c, err := gatherNet{n, &failures{}, &sources{}, &doubler{}}.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(ip)})
		if err != nil && ip == "224.0.0.0" {
			t.Log(err) // some systems bind to no multicast address
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, own := c.(*net.UDPConn); own == bound {
			t.Errorf("%s: a %T", ip, c)
		}
	}
}
