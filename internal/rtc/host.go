//go:build !js

package rtc

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pion/transport/v5"

	"github.com/chatixia-ai/mesh/internal/backoff"
	"github.com/chatixia-ai/mesh/internal/hostaddr"
)

const (
	// maxHostAddrs bounds the addresses of this host that ICE uses. Those of both hosts multiply: 256 pairs, instead of
	// the 10,000 of a hundred on each side, which took 15 s of a core.
	maxHostAddrs = 16
	// retryMin and retryMax are the delays after which a shared UDP port tries again to listen at an address.
	retryMin, retryMax = time.Second, 30 * time.Second
	// watchDelay is how long after its start a node begins to watch the host's addresses. Looking at them takes time, and the first
	// links have better use for it.
	watchDelay = 50 * time.Millisecond
)

// host is the network with the best of those addresses that ICE may use, and no others.
type host struct {
	transport.Net
	filter     hostaddr.Filter
	noLoopback bool
	ipFilter   func(net.IP) bool
}

func newHost(cfg *Config) *host {
	filter := hostaddr.Filter{Interfaces: cfg.Settings.Interfaces, Networks: cfg.Addresses}
	return &host{Net: cfg.net, filter: filter, noLoopback: cfg.NoLoopback, ipFilter: cfg.ipFilter}
}

// siteLocal and compatible are kinds of IPv6 addresses that are no candidates (RFC 8445, 5.1.1.1).
var siteLocal, compatible = netip.MustParsePrefix("fec0::/10"), netip.MustParsePrefix("::/96")

// addrs returns the addresses, the best first, and the interfaces that have them.
func (h *host) addrs() ([]hostaddr.Addr, map[string]*transport.Interface, error) {
	all, err := h.Net.Interfaces()
	if err != nil {
		return nil, nil, err
	}
	var found []hostaddr.Addr
	interfaces := make(map[string]*transport.Interface)
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil || i.Flags&net.FlagUp == 0 || h.noLoopback && i.Flags&net.FlagLoopback != 0 {
			continue
		}
		interfaces[i.Name] = i
		for _, a := range addrs {
			found = h.add(found, hostaddr.Addr{IP: ipOf(a, i.Name), Interface: i.Name})
		}
	}
	var sources []netip.Addr
	if s, ok := h.Net.(system); ok {
		sources = s.sources()
	}
	return hostaddr.Choose(found, sources, maxHostAddrs), interfaces, nil
}

// ipOf returns an address of an interface, with its zone if it has a meaning only there.
func ipOf(a net.Addr, iface string) netip.Addr {
	n, ok := a.(*net.IPNet)
	if !ok {
		return netip.Addr{}
	}
	ip, _ := netip.AddrFromSlice(n.IP)
	if ip = ip.Unmap(); ip.IsLinkLocalUnicast() {
		ip = ip.WithZone(iface) // none for IPv4
	}
	return ip
}

// add adds an address that ICE may use, unless another interface has it, too.
func (h *host) add(found []hostaddr.Addr, a hostaddr.Addr) []hostaddr.Addr {
	if !h.allows(a) || slices.ContainsFunc(found, func(f hostaddr.Addr) bool { return f.IP == a.IP }) {
		return found
	}
	return append(found, a)
}

func (h *host) allows(a hostaddr.Addr) bool {
	return a.IP.IsValid() && !siteLocal.Contains(a.IP) && !compatible.Contains(a.IP) &&
		!(h.noLoopback && a.IP.IsLoopback()) && (h.ipFilter == nil || h.ipFilter(a.IP.AsSlice())) && h.filter.Allows(a)
}

// Interfaces returns the interfaces with these addresses, in the order of their best one.
func (h *host) Interfaces() ([]*transport.Interface, error) {
	addrs, interfaces, err := h.addrs()
	if err != nil {
		return nil, err
	}
	var chosen []*transport.Interface
	with := make(map[string]*transport.Interface)
	for _, a := range addrs {
		i := with[a.Interface]
		if i == nil {
			i = transport.NewInterface(interfaces[a.Interface].Interface)
			with[a.Interface] = i
			chosen = append(chosen, i)
		}
		i.AddAddress(&net.IPNet{IP: a.IP.AsSlice(), Mask: net.CIDRMask(a.IP.BitLen(), a.IP.BitLen())})
	}
	return chosen, nil
}

// ListenUDP, ListenPacket and DialUDP bind sockets that would be of any address to the best one of those that
// the filter allows, if there is one: pion asks STUN and TURN servers from such sockets.

func (h *host) ListenUDP(network string, addr *net.UDPAddr) (transport.UDPConn, error) {
	if h.filter.IsZero() || addr != nil && len(addr.IP) > 0 && !addr.IP.IsUnspecified() {
		return h.Net.ListenUDP(network, addr)
	}
	ip, err := h.from(network)
	if err != nil {
		return nil, err
	}
	port := 0
	if addr != nil {
		port = addr.Port
	}
	return h.Net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, uint16(port))))
}

func (h *host) ListenPacket(network, address string) (net.PacketConn, error) {
	if at, err := netip.ParseAddrPort(address); err == nil && at.Addr().IsUnspecified() && !h.filter.IsZero() {
		ip, err := h.from(network)
		if err != nil {
			return nil, err
		}
		address = netip.AddrPortFrom(ip, at.Port()).String()
	}
	return h.Net.ListenPacket(network, address)
}

func (h *host) DialUDP(network string, local, remote *net.UDPAddr) (transport.UDPConn, error) {
	if local == nil && !h.filter.IsZero() {
		ip, err := h.from(network)
		if err != nil {
			return nil, err
		}
		local = net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0))
	}
	return h.Net.DialUDP(network, local, remote)
}

// from returns the best address of a network's family.
func (h *host) from(network string) (netip.Addr, error) {
	addrs, _, err := h.addrs()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range addrs {
		if a.IP.Is4() && !strings.HasSuffix(network, "6") || a.IP.Is6() && !strings.HasSuffix(network, "4") {
			return a.IP, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no address for %s that Network.Interfaces and Network.Addresses allow", network)
}

// watchHost keeps up with the host's addresses until ctx ends.
func (n *Node) watchHost(ctx context.Context) {
	select {
	case <-time.After(watchDelay):
	case <-ctx.Done():
		return
	}
	changes := hostaddr.Watch(ctx)
	n.api.follow()
	if addrs, _, err := n.api.net.addrs(); err == nil {
		n.box.post(func() { n.catchUp(addrs) })
	}
	for tries := 0; ; {
		var retry <-chan time.Time
		if n.api.mux != nil && n.api.mux.unsettled() {
			retry = time.After(backoff.Delay(retryMin, retryMax, tries))
		}
		select {
		case _, ok := <-changes:
			if !ok {
				return
			}
			tries = 0
			n.log.Debug().Msg("the host's addresses have changed")
			n.api.follow()
			n.box.post(n.networkChanged)
		case <-retry:
			tries++
			n.api.follow()
		}
	}
}
