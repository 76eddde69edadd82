//go:build !js

package rtc

// confirms are what the other end of a socket is known to have read, since a socket tells nothing of that: what is before a drain that it has
// responded to.
type confirms struct {
	later func() // nil where the data channel's acknowledgements count
	armed bool   // later was called, and confirm was not since then

	marks []drainMark // of drains without a response
	last  uint64      // bytes before the last drain
	until uint64      // bytes that are confirmed
}

// A drainMark is how many bytes were handed over before a drain.
type drainMark struct {
	number int
	bytes  uint64
}

// wrote notes that bytes were handed over.
func (c *confirms) wrote() {
	if c.later != nil && !c.armed {
		c.armed = true
		c.later()
	}
}

// drain notes a drain behind so many bytes.
func (c *confirms) drain(number int, bytes uint64) {
	if c.later != nil {
		c.marks, c.last = append(c.marks, drainMark{number, bytes}), bytes
	}
}

func (c *confirms) drained(number int) {
	for len(c.marks) > 0 && c.marks[0].number <= number {
		c.until = c.marks[0].bytes
		c.marks = c.marks[1:]
	}
}
