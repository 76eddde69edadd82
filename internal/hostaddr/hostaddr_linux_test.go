package hostaddr

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// twoEnds makes an interface eth0, which is up, and far, its other end. They have no addresses of their own making.
func twoEnds(t *testing.T) {
	testutil.IP(t, "link", "add", "eth0", "type", "veth", "peer", "name", "far")
	for _, name := range []string{"far", "eth0"} {
		testutil.IP(t, "link", "set", name, "addrgenmode", "none")
		testutil.IP(t, "link", "set", name, "up")
	}
	// The link layer takes a moment after that.
	testutil.Eventually(t, "eth0 is running", func() bool {
		i, err := net.InterfaceByName("eth0")
		return err == nil && i.Flags&net.FlagRunning != 0
	})
}

// Each change of an address, an interface or a default route is told, and nothing else.
func TestWatch(t *testing.T) {
	testutil.InOwnNetwork(t, func(t *testing.T) {
		twoEnds(t)
		ctx, cancel := context.WithCancel(t.Context())
		changes := Watch(ctx)
		for _, command := range [][]string{
			{"addr", "add", "192.168.7.1/24", "dev", "eth0"},
			{"route", "add", "default", "via", "192.168.7.254"},
			{"route", "del", "default"},
			{"addr", "add", "192.168.8.2/24", "dev", "eth0"},
			{"addr", "del", "192.168.7.1/24", "dev", "eth0"},
			{"route", "add", "192.0.9.0/24", "dev", "eth0"}, // which is no change
			{"link", "set", "eth0", "down"},
		} {
			testutil.IP(t, command...)
			if command[2] != "192.0.9.0/24" {
				testutil.Take(t, command[0]+" "+command[1], changes)
			} else if time.Sleep(4 * settle); len(changes) != 0 {
				t.Error("a route to some network is told as a change")
			}
		}
		cancel()
		if _, ok := <-changes; ok {
			t.Error("more changes than there were")
		}
	})
}

// A new address of IPv6 is told once it can be used.
func TestWatchTentative(t *testing.T) {
	testutil.InOwnNetwork(t, func(t *testing.T) {
		twoEnds(t)
		changes := Watch(t.Context())
		testutil.IP(t, "addr", "add", "2001:db8:7::1/64", "dev", "eth0")
		testutil.Take(t, "the address", changes)
		c, err := net.ListenPacket("udp", "[2001:db8:7::1]:0")
		if err != nil {
			t.Fatalf("it cannot be used: %v", err)
		}
		_ = c.Close()
	})
}

// What comes while nobody looks is one change.
func TestWatchTogether(t *testing.T) {
	testutil.InOwnNetwork(t, func(t *testing.T) {
		twoEnds(t)
		changes := Watch(t.Context())
		for _, n := range []string{"1", "2", "3", "4"} {
			testutil.IP(t, "addr", "add", "192.168.7."+n+"/24", "dev", "eth0")
			time.Sleep(2 * settle)
		}
		if testutil.Take(t, "the change", changes); len(changes) != 0 {
			t.Error("there is more than one")
		}
	})
}

func TestSources(t *testing.T) {
	testutil.InOwnNetwork(t, func(t *testing.T) {
		twoEnds(t)
		testutil.IP(t, "addr", "add", "192.168.7.1/24", "dev", "eth0")
		testutil.IP(t, "addr", "add", "fd00:7::1/64", "dev", "eth0", "nodad")
		if got := Sources(); len(got) != 0 {
			t.Errorf("%v without a route", got)
		}
		testutil.IP(t, "route", "add", "default", "via", "192.168.7.254")
		testutil.IP(t, "-6", "route", "add", "default", "via", "fd00:7::fe")
		want := []netip.Addr{netip.MustParseAddr("192.168.7.1"), netip.MustParseAddr("fd00:7::1")}
		if got := Sources(); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}
