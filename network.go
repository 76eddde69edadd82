package mesh

import (
	"cmp"
	"errors"
	"net/netip"
	"os"
	stdpath "path"
	"strconv"
	"strings"
	"time"
)

// Network is how a sidecar reaches peers and the signaling server. The zero
// value suits most networks.
type Network struct {
	// ICEServers are the STUN and TURN servers to use. Default: the TURN server
	// of $TURN_URL with $TURN_SECRET (ephemeral credentials) or $TURN_USERNAME
	// and $TURN_PASSWORD, if set; else those that the signaling server lists.
	ICEServers []ICEServer
	// ExtraICEServers are used besides those, wherever they come from.
	ExtraICEServers []ICEServer
	// RelayOnly forbids direct connections: everything passes a TURN server. So
	// does $ICE_TRANSPORT_POLICY if it is "relay".
	RelayOnly bool
	// UDPPort is the one UDP port that all peers share, for firewalls that open
	// one port, or AnyUDPPort for one that the system picks. 0 means a port for
	// each connection.
	UDPPort int
	// Interfaces are the network interfaces that may be used, by name or pattern,
	// as in path.Match: "eth0", "wg*". Default: $MESH_INTERFACES, such as eth0,wg*,
	// else all. What is named may come later; where lo is not, peers on the same
	// machine use other addresses.
	Interfaces []string
	// Addresses are the networks whose addresses this host may use, such as
	// 10.0.0.0/8. Default: $MESH_ADDRESSES, such as 10.0.0.0/8,fd00::/8, else all.
	// Of those that both allow, a peer is told the 16 that are most likely to be
	// of use.
	Addresses []netip.Prefix
	// NoLoopback leaves out loopback addresses, for agents that never talk to
	// others on their own machine.
	NoLoopback bool
	// NoLocal has links to agents of this user on this host go the way of all others. Without
	// it they move to a Unix socket once the peer has been authenticated, which is several
	// times as fast; RelayOnly rules that out, too. Default: $MESH_NO_LOCAL, else false.
	NoLocal bool
	// MDNS resolves the .local names behind which browsers hide their
	// addresses. It costs multicast traffic.
	MDNS bool
	// RecoveryTimeout is how long the link to a peer may be interrupted before
	// the peer counts as gone. Default: $MESH_RECOVERY_TIMEOUT, such as 90s, else 60 s.
	RecoveryTimeout time.Duration

	// CAFile names a PEM file with certificates of authorities that are trusted
	// besides the system's when the signaling server, or a TURN server with a
	// URL such as turns:host:443?transport=tcp, is reached over TLS.
	CAFile string
	// CertFile and KeyFile name PEM files with the certificate, and its key, that
	// the signaling server is shown if it asks for one.
	CertFile, KeyFile string

	// LogWebRTC adds pion's own log, at level debug and below, to find faults in
	// ICE, DTLS or SCTP. Passwords in it are redacted.
	LogWebRTC bool
}

// AnyUDPPort is the value of Network.UDPPort with which the system picks the one
// UDP port that all peers share.
const AnyUDPPort = -1

// localDefault fills in NoLocal.
func (n *Network) localDefault() (err error) {
	if n.NoLocal || n.RelayOnly {
		n.NoLocal = true
		return nil
	}
	text := cmp.Or(os.Getenv("MESH_NO_LOCAL"), "false")
	if n.NoLocal, err = strconv.ParseBool(text); err != nil {
		return &ConfigError{Field: "Network.NoLocal", Value: text, Err: errNotBool}
	}
	return nil
}

// addressDefaults fills in Interfaces and Addresses, and checks them.
func (n *Network) addressDefaults() error {
	if len(n.Interfaces) == 0 {
		n.Interfaces = listed(os.Getenv("MESH_INTERFACES"))
	}
	for _, pattern := range n.Interfaces {
		if _, err := stdpath.Match(pattern, ""); err != nil || pattern == "" {
			return &ConfigError{Field: "Network.Interfaces", Value: pattern, Err: errors.New("want the name of an interface, or a pattern such as wg*")}
		}
	}
	if len(n.Addresses) == 0 {
		for _, text := range listed(os.Getenv("MESH_ADDRESSES")) {
			network, err := parseNetwork(text)
			if err != nil {
				return &ConfigError{Field: "Network.Addresses", Value: text, Err: err}
			}
			n.Addresses = append(n.Addresses, network)
		}
	}
	for _, network := range n.Addresses {
		if !network.IsValid() {
			return &ConfigError{Field: "Network.Addresses", Value: network.String(), Err: errNotNetwork}
		}
	}
	return nil
}

var errNotNetwork = errors.New("want a network, such as 10.0.0.0/8, or an address")

// parseNetwork reads a network or one address.
func parseNetwork(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	network, err := netip.ParsePrefix(text)
	if err != nil {
		return network, errNotNetwork
	}
	return network, nil
}

// listed returns the parts of a text that are separated by commas. If there are only commas it returns one empty part,
// which is an error: a list that was set must not mean the same as none.
func listed(text string) (parts []string) {
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	if parts == nil && strings.TrimSpace(text) != "" {
		return []string{""}
	}
	return parts
}
