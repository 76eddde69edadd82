package rtc

import (
	"net/netip"
	"time"
)

// Settings are the part of a Config that people set: plain data, which can be passed to another process. The
// zero value suits most networks.
type Settings struct {
	// RelayOnly uses TURN servers only, so that peers do not learn our addresses.
	RelayOnly bool `json:"relay_only,omitempty"`
	// UDPPort, if not 0, is the one UDP port for all peers, or AnyUDPPort for one that the system picks. 0
	// means a port for each connection.
	UDPPort int `json:"udp_port,omitempty"`
	// Interfaces are names of the network interfaces, or patterns as in path.Match, and Addresses the networks whose
	// addresses may be used. All of them if empty.
	Interfaces []string       `json:"interfaces,omitempty"`
	Addresses  []netip.Prefix `json:"addresses,omitempty"`
	// NoLoopback leaves loopback addresses out, which are of use only to peers on this host.
	NoLoopback bool `json:"no_loopback,omitempty"`
	// NoLocal has links to processes of this user on this host go the way of all others, and not over a socket.
	NoLocal bool `json:"no_local,omitempty"`
	// MDNS resolves the .local names that browsers send in place of addresses.
	MDNS bool `json:"mdns,omitempty"`
	// RecoveryTimeout is how long a link may be interrupted before it is given up, 5 s more if there was a sign of life
	// just before. Default 60 s.
	RecoveryTimeout time.Duration `json:"recovery_timeout,omitempty"`
	// LogWebRTC logs what pion, the WebRTC implementation, logs itself, at levels debug and trace. It is for
	// debugging, and long; passwords are redacted.
	LogWebRTC bool `json:"log_webrtc,omitempty"`
}

// AnyUDPPort as UDPPort means one port for all peers that the system picks.
const AnyUDPPort = -1
