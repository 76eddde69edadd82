package signal

import "time"

// HurryUp makes a client's waits short enough to be waited for: retries after ms, slow ones after slow.
func HurryUp(c *Client, slow time.Duration) {
	c.timing.retry = func(int) time.Duration { return time.Millisecond }
	c.timing.slow = func() time.Duration { return slow }
}

// SetTiming changes one of a client's periods by name.
func SetTiming(c *Client, name string, d time.Duration) {
	*map[string]*time.Duration{
		"request": &c.timing.request, "register": &c.timing.register, "ping": &c.timing.ping,
		"pong": &c.timing.pong, "write": &c.timing.write, "heartbeat": &c.timing.heartbeat,
		"refresh": &c.timing.refresh,
	}[name] = d
}
