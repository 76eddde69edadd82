//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v5"
	"golang.org/x/sys/unix"

	"github.com/chatixia-ai/mesh/signaling"
)

var natRows = []row{
	{"nat", "two agents behind routers of their own, of every kind of NAT: direct where it can be, else by TURN", apart(func(r *run) { behindNATs(r, false) })},
	{"nat-relay-only", "the same with RelayOnly: always by TURN, not one packet from one to the other", apart(func(r *run) { behindNATs(r, true) })},
}

// A nat is how a router translates. The names are those of RFC 3489.
type nat struct {
	name string
	// masquerade is how it picks a port. Without anything it is the sender's, if that is free.
	masquerade string
	// Packets to open ports are let in that nobody there has asked for. A port is open if kind, sent and got say so: what is remembered
	// of a packet that leaves, and what of one that arrives has to be among it. "" means that none is.
	kind, sent, got string
	// strict says that packets are let in only from the addresses and ports to which some were sent.
	strict bool
}

var (
	fullCone          = nat{name: "full cone", kind: "inet_service", sent: "udp sport", got: "udp dport"}
	addressRestricted = nat{name: "address-restricted", kind: "ipv4_addr . inet_service", sent: "ip daddr . udp sport", got: "ip saddr . udp dport"}
	portRestricted    = nat{name: "port-restricted", strict: true}
	symmetric         = nat{name: "symmetric", masquerade: "fully-random", strict: true}
)

// hole reports whether two agents behind these can reach each other without a relay: a port that nobody knows, since it is another
// one for each destination, passes only where ports do not count.
func hole(a, b nat) bool {
	return !(a == symmetric && b.strict || b == symmetric && a.strict)
}

// rules are those of a router, for nft. What arrives for the router itself is dropped, as most do: else the connection tracking would
// remember it, and the port would be in use.
func (n nat) rules() string {
	text := fmt.Sprintf(`table ip nat {
	chain out { type nat hook postrouting priority srcnat; oifname "wan" masquerade %s; }
	chain self { type filter hook input priority filter; iifname "wan" drop; }
`, n.masquerade)
	if n.kind != "" {
		text += fmt.Sprintf(`
	set open { type %s; size 65535; flags dynamic; }
	chain leaves { type filter hook forward priority filter; iifname "lan" meta l4proto udp update @open { %s }; }
	chain in { type nat hook prerouting priority dstnat; iifname "wan" meta l4proto udp %s @open dnat to %s; }
`, n.kind, n.sent, n.got, homeAddr)
	}
	return text + "}\n"
}

const (
	// homeAddr is that of every agent, in a network of its own.
	homeAddr = "192.168.1.2"
	turnPort = 3478
)

func behindNATs(r *run, relayOnly bool) {
	r.needsLinks("nft")
	r.skip("nftables are not allowed here", nft(nil, nat{}.rules()))
	r.stop("forwarding", errors.Join(forward(), goPublic()))
	s := r.internet()
	all := []nat{fullCone, addressRestricted, portRestricted, symmetric}
	var pairs [][2]nat
	for _, a := range all {
		for _, b := range all {
			pairs = append(pairs, [2]nat{a, b})
		}
	}
	switch {
	case relayOnly:
		pairs = pick(r, [][2]nat{{fullCone, fullCone}, {portRestricted, addressRestricted}, {symmetric, symmetric}}, [][2]nat{{fullCone, fullCone}})
	case r.quick:
		pairs = [][2]nat{{fullCone, fullCone}, {portRestricted, portRestricted}, {symmetric, addressRestricted}, {symmetric, portRestricted}, {symmetric, symmetric}}
	}
	direct := 0
	for _, p := range pairs {
		r.do(func(r *run) {
			if r.throughNATs(s, p[0], p[1], relayOnly) {
				direct++
			}
		})
	}
	r.say("%d pairs, %d messages each way, %d direct and %d by TURN", len(pairs), natMessages, direct, len(pairs)-direct)
}

// internet starts the servers that everybody reaches: signaling, STUN and TURN.
func (r *run) internet() *server {
	const password = "of the relay"
	conn, err := net.ListenPacket("udp4", fmt.Sprintf("%s:%d", publicAddr, turnPort))
	r.stop("TURN server", err)
	relay, err := turn.NewServer(turn.ServerConfig{
		Realm: "faults", LoggerFactory: &logging.DefaultLoggerFactory{DefaultLogLevel: logging.LogLevelDisabled},
		AuthHandler: func(a *turn.RequestAttributes) (id string, key []byte, ok bool) {
			return a.Username, turn.GenerateAuthKey(a.Username, a.Realm, password), true
		},
		PacketConnConfigs: []turn.PacketConnConfig{{
			PacketConn:            conn,
			RelayAddressGenerator: &turn.RelayAddressGeneratorStatic{RelayAddress: net.ParseIP(publicAddr), Address: publicAddr},
		}},
	})
	r.stop("TURN server", err)
	r.later(func() { _ = relay.Close() })
	return r.servePublic(
		signaling.ICEServer{URLs: []string{fmt.Sprintf("stun:%s:%d", publicAddr, turnPort)}},
		signaling.ICEServer{URLs: []string{fmt.Sprintf("turn:%s:%d", publicAddr, turnPort)}, Username: "agent", Credential: password},
	)
}

const (
	natMessages = 1000
	// natBytes is less than natMessages take in one direction.
	natBytes = natMessages * 200
	// mostChecks is more than ICE takes to find a way, in bytes, and less than the messages of one direction.
	mostChecks = natBytes
	// mostBehindNAT is after how long two agents are linked: ICE prefers no relay for 2 s.
	mostBehindNAT = 5 * time.Second
)

// throughNATs has two agents exchange messages, one behind each NAT, and reports whether they went directly from one to the other.
func (r *run) throughNATs(s *server, a, b nat, relayOnly bool) (direct bool) {
	r.stop("counters", nft(nil, counters))
	homes := []*host{r.home(0, a), r.home(1, b)}
	start := time.Now()
	ids := []string{near, far}
	var agents []*child
	for i, h := range homes {
		j := job{URL: s.url(), ID: ids[i], Key: keyOf(ids[i]), Flows: []string{ids[1-i]}, Count: natMessages, Relay: relayOnly}
		agents = append(agents, r.launch(j, h.start))
	}
	for _, c := range agents {
		c.read()
	}
	r.took("linked", time.Since(start), mostBehindNAT)
	for i, c := range agents {
		from := ids[1-i]
		r.progress(fmt.Sprintf("%d messages of %s", natMessages, from), natMessages, func() int { return c.state().From[from].Got })
		r.inOrder(natMessages, from, ids[i], c.state().From[from])
	}
	forwarded, relayed := r.counted("forwarded"), r.counted("relayed")
	pair := a.name + " and " + b.name
	switch direct = hole(a, b) && !relayOnly; {
	case direct:
		r.check(forwarded.Bytes > 2*natBytes && relayed.Bytes < mostChecks, "%s: not direct, but %d B passed the relay and %d B did not", pair, relayed.Bytes, forwarded.Bytes)
	case relayOnly:
		r.check(forwarded.Packets == 0, "%s: %d packets passed from one to the other, with RelayOnly", pair, forwarded.Packets)
		fallthrough
	default:
		r.check(relayed.Bytes > 2*natBytes && forwarded.Bytes < mostChecks, "%s: not by TURN, but %d B passed the relay and %d B did not", pair, relayed.Bytes, forwarded.Bytes)
	}
	return direct
}

// counters count, in the internet, what it forwards from one agent's router to the other's, and what arrives for its servers.
const counters = `flush ruleset
table ip internet {
	counter forwarded {}
	counter relayed {}
	chain forward { type filter hook forward priority filter; counter name forwarded; }
	chain input { type filter hook input priority filter; iifname "home*" meta l4proto udp counter name relayed; }
}
`

// A count is what a counter has seen.
type count struct {
	Name           string
	Packets, Bytes int
}

func (r *run) counted(name string) count {
	raw, err := output(exec.Command("nft", "--json", "list", "counters"))
	r.stop("counters", err)
	var all struct{ Nftables []struct{ Counter count } }
	r.stop("counters", json.Unmarshal(raw, &all))
	for _, x := range all.Nftables {
		if x.Counter.Name == name {
			return x.Counter
		}
	}
	panic(end{fmt.Errorf("no counter %s in %s", name, raw)})
}

// home makes a host behind a router with a NAT. The router is linked to the internet.
func (r *run) home(i int, n nat) *host {
	outer, link := r.host(), fmt.Sprint("home", i)
	inner := r.host()
	// The documentation's networks, RFC 5737.
	network := []string{"198.51.100", "203.0.113"}[i]
	r.stop("link to a router", command("ip", "link", "add", link, "type", "veth", "peer", "name", "wan", "netns", outer.path()))
	r.later(func() { _ = command("ip", "link", "del", link) })
	r.stop("router", errors.Join(
		command("ip", "address", "add", network+".1/24", "dev", link),
		command("ip", "link", "set", link, "up"),
		outer.do(func() error {
			return errors.Join(
				command("ip", "link", "add", "lan", "type", "veth", "peer", "name", "eth0", "netns", inner.path()),
				command("ip", "address", "add", network+".2/24", "dev", "wan"),
				command("ip", "address", "add", "192.168.1.1/24", "dev", "lan"),
				command("ip", "link", "set", "wan", "up"),
				command("ip", "link", "set", "lan", "up"),
				command("ip", "route", "add", "default", "via", network+".1"),
				forward(),
			)
		}),
		nft(outer, n.rules()),
	))
	r.stop("home", inner.do(func() error {
		return errors.Join(
			command("ip", "link", "set", "lo", "up"),
			command("ip", "address", "add", homeAddr+"/24", "dev", "eth0"),
			command("ip", "link", "set", "eth0", "up"),
			command("ip", "route", "add", "default", "via", "192.168.1.1"),
		)
	}))
	return inner
}

// forward makes this network forward packets.
func forward() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) }

// nft applies rules on a host, or where this process is if that is nil.
func nft(h *host, rules string) error {
	apply := func() error {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(rules)
		_, err := output(cmd)
		return err
	}
	if h == nil {
		return apply()
	}
	return h.do(apply)
}

// A host is a network namespace.
type host struct{ ns *os.File }

// host makes a network namespace. It lives as long as processes are in it, and at least until the end of the row.
func (r *run) host() *host {
	h := new(host)
	r.stop("network namespace", onThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			h.ns, err = os.Open("/proc/thread-self/ns/net")
		}
		return err
	}))
	r.later(func() { _ = h.ns.Close() })
	return h
}

// path is by what other processes can open it.
func (h *host) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.ns.Fd()) }

// do calls f with this network. Processes that f starts are in it, too.
func (h *host) do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
}

// start starts a process there.
func (h *host) start(cmd *exec.Cmd) error { return h.do(cmd.Start) }

// onThread calls f on a thread of its own, which ends with it.
func onThread(f func() error) error {
	result := make(chan error)
	go func() { // ends with f
		runtime.LockOSThread() // and is never unlocked, so that nobody else gets the thread
		result <- f()
	}()
	return <-result
}
