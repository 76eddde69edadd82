package hostaddr

import (
	"cmp"
	"net/netip"
	"path"
	"slices"
	"strings"
)

// An Addr is one address of the host.
type Addr struct {
	IP        netip.Addr // with a zone if it has a meaning only at its interface
	Interface string
}

// A Filter says which addresses may be used. The zero value allows all.
type Filter struct {
	Interfaces []string       // names or patterns, as in path.Match; all if there are none
	Networks   []netip.Prefix // all if there are none
}

// IsZero reports whether the filter allows all addresses.
func (f Filter) IsZero() bool { return len(f.Interfaces) == 0 && len(f.Networks) == 0 }

// Allows reports whether an address may be used.
func (f Filter) Allows(a Addr) bool {
	named := func(pattern string) bool {
		ok, _ := path.Match(pattern, a.Interface)
		return ok
	}
	contains := func(p netip.Prefix) bool { return p.Contains(a.IP.WithZone("")) }
	return (len(f.Interfaces) == 0 || slices.ContainsFunc(f.Interfaces, named)) &&
		(len(f.Networks) == 0 || slices.ContainsFunc(f.Networks, contains))
}

// kind is how likely an address is to be of use to a peer, the best first.
type kind uint8

const (
	source    kind = iota // the one from which the host sends to the Internet
	global                // one of the Internet
	private               // one of a site (RFC 1918, RFC 4193), or of a provider's NAT (RFC 6598)
	loopback              // to peers on this host
	linkLocal             // to neighbours; browsers and pion announce none of IPv6
	virtual               // of a bridge to containers or virtual machines on this host
)

var shared = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598

// bridges are what the names of interfaces to containers and virtual machines begin with.
var bridges = []string{"docker", "br-", "veth", "virbr", "vmnet", "vboxnet", "lxcbr", "lxdbr", "incusbr", "cni", "podman",
	"flannel", "cali", "cilium", "kube", "vnet", "bridge", "vEthernet"}

func kindOf(a Addr, sources []netip.Addr) kind {
	ofBridge := slices.ContainsFunc(bridges, func(b string) bool { return strings.HasPrefix(a.Interface, b) })
	switch ip := a.IP; {
	case slices.Contains(sources, ip):
		return source
	case ip.IsLoopback():
		return loopback
	case ofBridge:
		return virtual
	case ip.IsLinkLocalUnicast():
		return linkLocal
	case ip.IsPrivate() || shared.Contains(ip):
		return private
	}
	return global
}

// Choose returns at most limit addresses, the best first. Of one kind, each interface has its first address of a
// family before another has its second, and a quarter of the limit is for the family that would have less. It goes by
// nothing but its arguments and their order.
func Choose(all []Addr, sources []netip.Addr, limit int) []Addr {
	type ranked struct {
		Addr
		kind kind
		nth  int // of its kind and family at its interface
	}
	type group struct {
		name string
		kind kind
		is6  bool
	}
	count := make(map[group]int)
	order := make([]ranked, len(all))
	for i, a := range all {
		g := group{a.Interface, kindOf(a, sources), a.IP.Is6()}
		order[i] = ranked{a, g.kind, count[g]}
		count[g]++
	}
	slices.SortStableFunc(order, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.nth, b.nth))
	})
	chosen := make(map[Addr]bool)
	var families [2]int
	for _, most := range []int{limit - limit/4, limit} {
		for _, r := range order {
			n := &families[0]
			if r.IP.Is6() {
				n = &families[1]
			}
			if len(chosen) < limit && *n < most && !chosen[r.Addr] {
				chosen[r.Addr] = true
				*n++
			}
		}
	}
	var best []Addr
	for _, r := range order {
		if chosen[r.Addr] {
			best = append(best, r.Addr)
			delete(chosen, r.Addr) // which may be listed twice
		}
	}
	return best
}
