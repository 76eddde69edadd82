//go:build !js

package rtc

import (
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/pion/transport/v5"
)

// failures are the errors of one session that pion reports only in its log: it goes on without the candidates
// or the server that failed. If the attempt fails, they are the reason.
type failures struct {
	transport func() // called when DTLS or SCTP has failed

	mu   sync.Mutex
	last [failureKinds]string // the latest of each kind, but the first transport failure
}

type failureKind uint8

const (
	socketFailure    failureKind = iota // a local socket or interface
	serverFailure                       // a STUN or TURN server
	transportFailure                    // DTLS or SCTP
	failureKinds
)

func (f *failures) note(kind failureKind, what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if kind == transportFailure && f.last[kind] != "" {
		return // what follows is its consequence
	}
	f.last[kind] = what
}

// forget forgets why candidates were missing: they are gathered anew.
func (f *failures) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last[socketFailure], f.last[serverFailure] = "", ""
}

// suffix returns what last has of these kinds, as the end of a sentence.
func (f *failures) suffix(kinds ...failureKind) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var s strings.Builder
	for _, k := range kinds {
		if f.last[k] != "" {
			fmt.Fprintf(&s, "; %s", f.last[k])
		}
	}
	return s.String()
}

// noteLog notes a warning of pion's that says why something failed. It knows them by their texts; one that a
// later version words differently is only in pion's log.
func (f *failures) noteLog(scope, msg string) {
	switch {
	case f == nil:
	case scope == "pc" && strings.HasPrefix(msg, "Failed to start "):
		_, why, _ := strings.Cut(msg, ": ")
		f.note(transportFailure, why)
		f.transport()
	case scope == "ice":
		lower := strings.ToLower(msg)
		for _, about := range []string{"relay", "turn client", "server reflexive", "dtls client", "tcp address", "udp address"} {
			if strings.HasPrefix(lower, "failed ") && strings.Contains(lower, about) {
				f.note(serverFailure, msg)
				return
			}
		}
	}
}

// gatherNet is the network of one session. It notes failures, bounds where checks come from, and sends packets twice where that
// helps.
type gatherNet struct {
	transport.Net
	failures *failures
	sources  *sources
	twice    *doubler
}

func (n gatherNet) ListenUDP(network string, addr *net.UDPAddr) (transport.UDPConn, error) {
	c, err := n.Net.ListenUDP(network, addr)
	n.noted(socketFailure, err)
	if err != nil {
		return nil, err
	}
	if local, ok := c.LocalAddr().(*net.UDPAddr); !ok || local.IP.IsUnspecified() || local.IP.IsMulticast() {
		return c, nil // for mDNS, see directly
	}
	return boundUDP{doubledUDP{fast(c), n.twice}, n.sources}, nil
}

func (n gatherNet) ListenPacket(network, address string) (net.PacketConn, error) {
	c, err := n.Net.ListenPacket(network, address)
	n.noted(socketFailure, err)
	if err != nil {
		return nil, err
	}
	return doubledPackets{c, n.twice}, nil
}

func (n gatherNet) Interfaces() ([]*transport.Interface, error) {
	all, err := n.Net.Interfaces()
	n.noted(socketFailure, err)
	return all, err
}

func (n gatherNet) ResolveUDPAddr(network, address string) (*net.UDPAddr, error) {
	a, err := n.Net.ResolveUDPAddr(network, address)
	n.notedLookup(network, address, err)
	return a, err
}

func (n gatherNet) ResolveTCPAddr(network, address string) (*net.TCPAddr, error) {
	a, err := n.Net.ResolveTCPAddr(network, address)
	n.notedLookup(network, address, err)
	return a, err
}

func (n gatherNet) noted(kind failureKind, err error) {
	if err != nil {
		n.failures.note(kind, err.Error())
	}
}

// notedLookup leaves out IPv6: most servers have no such address, and where the lookup itself fails, the one
// for IPv4 does too.
func (n gatherNet) notedLookup(network, address string, err error) {
	if err != nil && !strings.HasSuffix(network, "6") {
		n.failures.note(serverFailure, fmt.Sprintf("look up %s: %v", address, err))
	}
}
