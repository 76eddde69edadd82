package signaling

import (
	"net/http"
	"net/netip"
	"strings"
)

// source returns the part of a client's address that limits count: an IPv4 address, or the first 64 bits of an IPv6
// address, since a host usually has all of the rest. It is the zero Prefix for what is no IP address.
func source(addr netip.Addr) netip.Prefix {
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// parseAddr returns the address in a text such as an http.Request's RemoteAddr, or the zero Addr.
func parseAddr(hostport string) netip.Addr {
	addr, err := netip.ParseAddrPort(hostport)
	if err != nil {
		return netip.Addr{}
	}
	return plain(addr.Addr())
}

// plain returns addr without what does not distinguish hosts: a zone, and the form of an IPv4 address in IPv6.
func plain(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

// source returns the source of a request. If it comes from a trusted proxy, that is what the proxy says; what the
// client itself has put into the header is to the left of that, and does not count.
func (s *Server) source(r *http.Request) netip.Prefix {
	addr := parseAddr(r.RemoteAddr)
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && s.cfg.trusts(addr); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		addr = plain(hop)
	}
	return source(addr)
}

// trusts reports whether addr is that of a trusted proxy.
func (cfg *Config) trusts(addr netip.Addr) bool {
	for _, p := range cfg.TrustedProxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
