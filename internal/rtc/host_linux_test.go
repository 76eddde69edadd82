package rtc_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// veth makes an interface, which is up, and far, its other end. They have no addresses of their own making.
func veth(t *testing.T, name, far string) {
	testutil.IP(t, "link", "add", name, "type", "veth", "peer", "name", far)
	for _, end := range []string{far, name} {
		testutil.IP(t, "link", "set", end, "addrgenmode", "none")
		testutil.IP(t, "link", "set", end, "up")
	}
}

// onNetwork has a node use the interfaces of the host, but for lo.
func onNetwork(c *rtc.Config) {
	c.AllNetworks()
	c.NoLoopback = true
}

func shared(c *rtc.Config) {
	onNetwork(c)
	c.UDPPort = rtc.AnyUDPPort
}

// With a shared UDP port, links are made at an address that comes after the start, and move from one that goes to one
// that comes.
func TestAddressesComeAndGo(t *testing.T) {
	t.Parallel()
	testutil.InOwnNetwork(t, func(t *testing.T) {
		veth(t, "eth0", "far")
		h := newHub(t)
		a, b := start(t, h, "a", shared).join(), start(t, h, "b", shared).join()
		testutil.IP(t, "addr", "add", "192.168.7.1/24", "dev", "eth0")
		linked(t, a, b)
		testutil.IP(t, "addr", "add", "192.168.8.1/24", "dev", "eth0")
		testutil.IP(t, "addr", "del", "192.168.7.1/24", "dev", "eth0")
		for _, n := range []*agent{a, b} {
			testutil.Eventually(t, n.id+" follows", func() bool { return n.ListensAt("192.168.8.1") && !n.ListensAt("192.168.7.1") })
		}
		send(t, a.peer("b"), message(1, 100))
		testutil.Eventually(t, "the message", func() bool { return len(b.received("a")) == 1 })
		testutil.Eventually(t, "the new address", func() bool { return a.LocalAddress("b") == "192.168.8.1" })
		if got := a.history() + b.history(); got != "[+b][+a]" {
			t.Errorf("history %s", got)
		}
	})
}

// An address that cannot be used yet keeps no node from starting, and is used once it can be.
func TestTentativeAddress(t *testing.T) {
	t.Parallel()
	testutil.InOwnNetwork(t, func(t *testing.T) {
		veth(t, "eth0", "far")
		testutil.IP(t, "addr", "add", "192.168.7.1/24", "dev", "eth0")
		testutil.IP(t, "link", "set", "far", "down")
		testutil.IP(t, "addr", "add", "2001:db8:7::1/64", "dev", "eth0") // tentative until there is a far end
		var log testutil.LogBuffer
		h := newHub(t)
		a := start(t, h, "a", shared, func(c *rtc.Config) { c.Log = zerolog.New(&log) })
		if a.ListensAt("2001:db8:7::1") || log.Count(`"address":"2001:db8:7::1"`) != 1 || log.Count(`"level":"warn"`) != 1 {
			t.Errorf("log: %s", log.String())
		}
		testutil.IP(t, "link", "set", "far", "up")
		testutil.Eventually(t, "it is used", func() bool { return a.ListensAt("2001:db8:7::1") })
	})
}

// hosts returns the addresses of the host candidates that a peer has sent so far.
func hosts(h *hub, from string) func() []string {
	var mu sync.Mutex
	var seen []string
	h.setFilter(func(m signal.Message) []signal.Message {
		var c signal.ICECandidate
		if m.Type == signal.Candidate && m.PeerID == from && json.Unmarshal(m.Payload, &c) == nil {
			if f := strings.Fields(c.Candidate); len(f) > 7 && f[7] == "host" {
				mu.Lock()
				seen = append(seen, f[4])
				mu.Unlock()
			}
		}
		return []signal.Message{m}
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Compact(slices.Sorted(slices.Values(seen)))
	}
}

// A host with a hundred addresses announces the best 16, and links as fast as any other.
func TestHundredAddresses(t *testing.T) {
	t.Parallel()
	testutil.InOwnNetwork(t, func(t *testing.T) {
		veth(t, "eth0", "far")
		veth(t, "docker0", "container")
		testutil.IP(t, "addr", "add", "172.17.0.1/16", "dev", "docker0")
		for i := range 100 {
			testutil.IP(t, "addr", "add", fmt.Sprintf("10.7.%d.1/24", i), "dev", "eth0")
		}
		testutil.IP(t, "addr", "add", "fd00:7::1/64", "dev", "eth0", "nodad")
		testutil.IP(t, "route", "add", "default", "via", "10.7.99.254", "src", "10.7.99.1")
		for name, set := range map[string]func(*rtc.Config){"a port each": onNetwork, "a shared port": shared} {
			h := newHub(t)
			announced := hosts(h, "a")
			a, b := start(t, h, "a", set).join(), start(t, h, "b", set).join()
			linked(t, a, b)
			testutil.Eventually(t, "the candidates", func() bool { return len(announced()) >= 16 })
			got := announced()
			if len(got) != 16 || !slices.Contains(got, "10.7.99.1") || !slices.Contains(got, "fd00:7::1") || slices.Contains(got, "172.17.0.1") {
				t.Errorf("%s: announced %q", name, got)
			}
			a.close(t)
			b.close(t)
		}
	})
}

// Only addresses of the interfaces and networks that are set are announced, or asked from.
func TestInterfacesAndAddresses(t *testing.T) {
	t.Parallel()
	testutil.InOwnNetwork(t, func(t *testing.T) {
		veth(t, "eth0", "far")
		veth(t, "eth1", "far1")
		testutil.IP(t, "addr", "add", "192.168.7.1/24", "dev", "eth0")
		testutil.IP(t, "addr", "add", "192.168.8.1/24", "dev", "eth1")
		testutil.IP(t, "addr", "add", "192.168.9.1/24", "dev", "eth1")
		for name, c := range map[string]struct {
			set  rtc.Settings
			want []string
		}{
			"interface":         {rtc.Settings{Interfaces: []string{"eth1"}}, []string{"192.168.8.1", "192.168.9.1"}},
			"network":           {rtc.Settings{Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.7.0/24")}}, []string{"192.168.7.1"}},
			"shared, interface": {rtc.Settings{UDPPort: rtc.AnyUDPPort, Interfaces: []string{"eth[0]"}}, []string{"192.168.7.1"}},
		} {
			h := newHub(t)
			announced := hosts(h, "a")
			a := start(t, h, "a", func(cfg *rtc.Config) { cfg.AllNetworks(); cfg.Settings = c.set }).join()
			b := start(t, h, "b", onNetwork).join()
			linked(t, a, b)
			testutil.Eventually(t, name+": the candidates", func() bool { return slices.Equal(announced(), c.want) })
			a.close(t)
			b.close(t)
		}
	})
}

// An interface that is named and not there may come later, which the log says.
func TestInterfaceComesLater(t *testing.T) {
	t.Parallel()
	testutil.InOwnNetwork(t, func(t *testing.T) {
		var log testutil.LogBuffer
		h := newHub(t)
		later := func(c *rtc.Config) {
			c.AllNetworks()
			c.Interfaces, c.Log = []string{"wg*"}, zerolog.New(&log)
		}
		a, b := start(t, h, "a", later).join(), start(t, h, "b", later).join()
		if log.Count("no address of this host") != 2 {
			t.Errorf("log: %s", log.String())
		}
		veth(t, "wg0", "far")
		testutil.IP(t, "addr", "add", "192.168.7.1/24", "dev", "wg0")
		linked(t, a, b)
	})
}

// An address that comes while a link is first made is used at once, whichever end gets it: by a restart, long before the attempt is
// given up.
func TestAddressComesDuringAttempt(t *testing.T) {
	t.Parallel()
	testutil.InOwnNetwork(t, func(t *testing.T) {
		veth(t, "eth0", "far")
		veth(t, "eth1", "far1")
		testutil.IP(t, "addr", "add", "192.168.9.1/24", "dev", "eth1")
		for _, late := range []string{"a", "b"} {
			h := newHub(t)
			var sessions testutil.Record[string]
			var restarts testutil.Record[bool]
			h.setFilter(tampering(t, func(typ string, d *signal.Description) {
				if d.Number > 0 || d.Restart {
					restarts.Add(true)
				}
				if typ == signal.Offer && !slices.Contains(sessions.All(), d.Session) {
					sessions.Add(d.Session)
				}
			}))
			on := func(id string) *agent {
				return start(t, h, id, func(c *rtc.Config) {
					c.AllNetworks()
					c.Interfaces = []string{"eth1"}
					if id == late {
						c.Interfaces = []string{"eth0"}
					}
					c.ICEFailed(time.Hour)
					c.ConnectTimeout = time.Hour
				}).join()
			}
			b := on("b")
			a := on("a")
			testutil.Eventually(t, "an answer", func() bool { return h.count(signal.Answer, "b", "a") > 0 })
			testutil.Eventually(t, "the answer is applied", func() bool { return a.Answered("b") })
			for _, x := range []*agent{a, b} { // a change that brings no address interrupts nothing
				x.NetworkChanged()
				x.Answered("")
			}
			if restarts.Len() > 0 {
				t.Errorf("%s late: a restart for no new address", late)
			}
			testutil.IP(t, "addr", "add", "192.168.8.1/24", "dev", "eth0")
			linked(t, a, b)
			if n := sessions.Len(); n != 1 {
				t.Errorf("%s late: %d attempts", late, n)
			}
			a.close(t)
			b.close(t)
			testutil.IP(t, "addr", "del", "192.168.8.1/24", "dev", "eth0")
		}
	})
}
