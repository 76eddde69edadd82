//go:build !js

package rtc

import "time"

// A bucket paces events: a burst of them at once, and then one each period. Its zero value is full.
type bucket struct {
	full time.Time // when a whole burst is allowed again
}

// take takes one event and returns 0, or how long to wait until there may be another.
func (b *bucket) take(now time.Time, burst int, period time.Duration) time.Duration {
	if b.full.Before(now) {
		b.full = now
	}
	if wait := b.full.Sub(now) - time.Duration(burst-1)*period; wait > 0 {
		return wait
	}
	b.full = b.full.Add(period)
	return 0
}
