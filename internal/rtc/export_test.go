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
