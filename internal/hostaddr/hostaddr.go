// Package hostaddr tells when the host's addresses change, and which of them are the best.
package hostaddr

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// anywhere are addresses of documentation (RFC 5737, RFC 3849), to which only a default route leads.
var anywhere = []string{"192.0.2.1:9", "[2001:db8::1]:9"}

// Sources returns the addresses from which the host sends to the Internet, one of each family that has a default route.
// Nothing is sent to find out.
func Sources() []netip.Addr {
	var sources []netip.Addr
	for _, to := range anywhere {
		c, err := net.Dial("udp", to)
		if err != nil {
			continue
		}
		sources = append(sources, c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap())
		_ = c.Close()
	}
	return sources
}

// look returns a text of the interfaces that are up, with their addresses, and of the sources. It differs if any of
// them does. An address that cannot be used yet, such as one of IPv6 that may be another host's, is left out.
func look() (string, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	unusable := unusable()
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // the interface is gone
		}
		var usable []string
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && !unusable[interfaceAddr{i.Index, n.IP.String()}] {
				usable = append(usable, n.IP.String())
			}
		}
		slices.Sort(usable)
		fmt.Fprintln(&b, i.Name, i.Flags, usable)
	}
	fmt.Fprintln(&b, Sources())
	return b.String(), nil
}

// interfaceAddr is an address of the interface with an index.
type interfaceAddr struct {
	index int
	ip    string
}
