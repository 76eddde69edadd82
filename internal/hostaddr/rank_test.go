package hostaddr

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// addrs reads "interface address" pairs.
func addrs(texts ...string) (all []Addr) {
	for _, s := range texts {
		name, ip, _ := strings.Cut(s, " ")
		all = append(all, Addr{IP: netip.MustParseAddr(ip), Interface: name})
	}
	return all
}

func texts(all []Addr) (texts []string) {
	for _, a := range all {
		texts = append(texts, a.Interface+" "+a.IP.String())
	}
	return texts
}

func TestChooseOrder(t *testing.T) {
	want := []string{
		"eth0 10.0.0.2", "eth0 2001:db8:1::2", // from which it sends to the Internet
		"eth1 203.0.113.5", "eth1 2001:db8:2::2", "eth0 2001:db8:1::3",
		"eth0 10.0.0.3", "eth0 fd00::1", "wlan0 192.168.1.2", "tun0 100.64.0.9",
		"lo 127.0.0.1",
		"eth0 169.254.1.1", "eth0 fe80::1%eth0",
		"docker0 172.17.0.1", "br-1f2e 172.18.0.1", "virbr0 192.168.122.1", "docker0 fe80::2%docker0",
	}
	sources := []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("2001:db8:1::2")}
	if got := texts(Choose(addrs(want...), sources, 16)); !slices.Equal(got, want) {
		t.Errorf("\ngot  %q\nwant %q", got, want)
	}
	shuffled := slices.Clone(want)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	got := texts(Choose(addrs(shuffled...), sources, 16))
	for i, group := range [][]string{want[:2], want[9:10], want[12:]} {
		at := []int{0, 9, 12}[i]
		part := slices.Sorted(slices.Values(got[at : at+len(group)]))
		if !slices.Equal(part, slices.Sorted(slices.Values(group))) {
			t.Errorf("in another order: %q", got)
		}
	}
}

func TestChooseLimit(t *testing.T) {
	many := func(iface, format string, n int) (all []string) {
		for i := range n {
			all = append(all, iface+" "+fmt.Sprintf(format, i+1))
		}
		return all
	}
	v4, v6 := many("eth0", "10.0.0.%d", 100), many("eth0", "fd00::%d", 100)
	docker := many("docker0", "172.17.0.%d", 5)
	for name, c := range map[string]struct {
		all, want []string
	}{
		"none":                      {nil, nil},
		"of one family":             {v4, v4[:16]},
		"of both":                   {slices.Concat(v4, v6), slices.Concat(v4[:1], v6[:1], v4[1:2], v6[1:2])},
		"few of the other":          {slices.Concat(v4, v6[:2]), nil},
		"bridges alone":             {docker, docker},
		"bridges last":              {slices.Concat(docker, v4[:2]), slices.Concat(v4[:2], docker)},
		"each interface in turn":    {slices.Concat(v4, []string{"tun0 10.9.0.1"}), slices.Concat(v4[:1], []string{"tun0 10.9.0.1"}, v4[1:15])},
		"an address at two of them": {[]string{"eth0 10.0.0.1", "eth1 10.0.0.1"}, []string{"eth0 10.0.0.1", "eth1 10.0.0.1"}},
	} {
		got := texts(Choose(addrs(c.all...), nil, 16))
		if len(got) != min(16, len(c.all)) {
			t.Errorf("%s: %d of %d", name, len(got), len(c.all))
		}
		if n := min(len(got), len(c.want)); !slices.Equal(got[:n], c.want) && c.want != nil {
			t.Errorf("%s:\ngot  %q\nwant %q", name, got, c.want)
		}
		if name == "few of the other" && !slices.Contains(got, v6[1]) {
			t.Errorf("%s: %q", name, got)
		}
		if name == "of both" && len(slices.DeleteFunc(got, func(s string) bool { return strings.Contains(s, ":") })) < 4 {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestFilter(t *testing.T) {
	all := addrs("eth0 10.0.0.1", "eth0 fd00::1", "eth1 10.1.0.1", "wlan0 192.168.1.1", "eth0 fe80::1%eth0")
	for name, c := range map[string]struct {
		Filter
		want []string
	}{
		"none":     {Filter{}, texts(all)},
		"name":     {Filter{Interfaces: []string{"wlan0"}}, []string{"wlan0 192.168.1.1"}},
		"pattern":  {Filter{Interfaces: []string{"eth[1-9]", "w*"}}, []string{"eth1 10.1.0.1", "wlan0 192.168.1.1"}},
		"network":  {Filter{Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, []string{"eth0 10.0.0.1", "eth1 10.1.0.1"}},
		"zone":     {Filter{Networks: []netip.Prefix{netip.MustParsePrefix("fe80::/10")}}, []string{"eth0 fe80::1%eth0"}},
		"together": {Filter{Interfaces: []string{"eth0"}, Networks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}, []string{"eth0 10.0.0.1"}},
		"nothing":  {Filter{Interfaces: []string{"tun0"}}, nil},
	} {
		var got []Addr
		for _, a := range all {
			if c.Allows(a) {
				got = append(got, a)
			}
		}
		if !slices.Equal(texts(got), c.want) || c.IsZero() != (name == "none") {
			t.Errorf("%s: %q, want %q", name, texts(got), c.want)
		}
	}
}
