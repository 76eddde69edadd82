package rtc

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/pion/transport/v5"
)

// Quick makes waits short enough for tests. baseWait and glareHold keep their proportion to each other.
func (c *Config) Quick() {
	c.timing = defaultTiming
	c.timing.backoffMin = 50 * time.Millisecond
	c.timing.backoffMax = 200 * time.Millisecond
	c.timing.restartMin = 100 * time.Millisecond
	c.timing.restartMax = 500 * time.Millisecond
	c.timing.glareHold = 300 * time.Millisecond
	c.timing.baseWait = 1500 * time.Millisecond
	c.timing.baseClosed = 100 * time.Millisecond
	c.timing.iceDisconnected = time.Second
	c.timing.iceFailed = 2 * time.Second
	c.timing.iceKeepalive = 200 * time.Millisecond
}

// BaseWait sets how long a base peer that went silent is left alone.
func (c *Config) BaseWait(d time.Duration) { c.timing.baseWait = d }

// DialPace sets how long a dial counts that has come to nothing.
func (c *Config) DialPace(d time.Duration) { c.timing.dialPace = d }

// MaxDials is how many dials count at a time.
const MaxDials = maxDials

// UseNet replaces the network.
func (c *Config) UseNet(n transport.Net) { c.net = n }

// Lookup replaces the name server.
func (c *Config) Lookup(f func(ctx context.Context, network, host string) ([]netip.Addr, error)) {
	c.lookup = f
}

// OnlyLoopback keeps other networks of the test machine out.
func (c *Config) OnlyLoopback() {
	c.Loopback = true
	c.ipFilter = func(ip net.IP) bool { return ip.IsLoopback() }
}

// Parked returns how many superseded connections to a peer are kept.
func (n *Node) Parked(id string) int {
	count := make(chan int)
	n.box.post(func() {
		if sl := n.slots[id]; sl != nil {
			count <- len(sl.parked)
		} else {
			count <- 0
		}
	})
	return <-count
}
