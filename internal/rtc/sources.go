//go:build !js

package rtc

import (
	"net/netip"
	"sync"
)

// maxSources bounds the addresses from which a peer may check a path: pion makes a candidate of each that no description
// has announced, without any bound. An honest peer has its candidates, and as many more behind its NAT.
const maxSources = 2 * maxRemoteCandidates

// sources are the addresses from which checks have come since the last description.
type sources struct {
	mu   sync.Mutex
	seen map[netip.AddrPort]struct{}
}

func (s *sources) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = nil
}

// admits reports whether pion may see a packet: it is no check, or it comes from one of the first addresses.
func (s *sources) admits(b []byte, from netip.AddrPort) bool {
	if !isCheck(b) {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.seen[from]; ok {
		return true
	}
	if len(s.seen) >= maxSources {
		return false
	}
	if s.seen == nil {
		s.seen = make(map[netip.AddrPort]struct{})
	}
	s.seen[from] = struct{}{}
	return true
}

// seenAt reports whether a check has been admitted from an address.
func (s *sources) seenAt(from netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.seen[from]
	return ok
}

// isCheck reports whether a packet is a STUN binding request (RFC 8489, 5), with which ICE checks a path.
func isCheck(b []byte) bool { return len(b) >= 2 && b[0] == 0 && b[1] == 1 }

// boundUDP is a socket that drops what its sources do not admit.
type boundUDP struct {
	fastUDP
	sources *sources
}

func (c boundUDP) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		n, from, err := c.fastUDP.ReadFromAddrPort(b)
		if err != nil || c.sources.admits(b[:n], from) {
			return n, from, err
		}
	}
}
