package signal

import "time"

// HurryUp makes a client retry after a millisecond.
func HurryUp(c *Client) {
	c.timing.retry = func(int) time.Duration { return time.Millisecond }
	c.timing.slow = func() time.Duration { return time.Millisecond }
}

// RetryDelay returns how long a client waits after a number of failures.
func RetryDelay(failures int) time.Duration { return defaultTiming.retry(failures) }

// SetRetry makes a client retry after d.
func SetRetry(c *Client, d time.Duration) { c.timing.retry = func(int) time.Duration { return d } }

// SetTiming changes one of a client's periods by name.
func SetTiming(c *Client, name string, d time.Duration) {
	*map[string]*time.Duration{
		"request": &c.timing.request, "register": &c.timing.register, "ping": &c.timing.ping,
		"pong": &c.timing.pong, "write": &c.timing.write, "heartbeat": &c.timing.heartbeat,
		"refresh": &c.timing.refresh, "probe": &c.timing.probe, "urgent": &c.timing.urgent, "patience": &c.timing.patience, "message": &c.timing.message, "in use": &c.timing.inUse,
	}[name] = d
}
