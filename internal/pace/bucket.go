// Package pace bounds how often others can make something happen.
package pace

import "time"

// A Rate allows Burst events at once, and one more after each Every. Burst must be at least 1.
type Rate struct {
	Burst int
	Every time.Duration
}

// A Bucket paces events (a token bucket). Its zero value has the whole burst.
type Bucket struct {
	whole time.Time
}

// Whole returns when b will have its whole burst again, if nothing is taken before; in the past if it has it.
func (b *Bucket) Whole() time.Time { return b.whole }

// Take takes one event and returns 0, or how long to wait until there may be another.
func (b *Bucket) Take(now time.Time, r Rate) (wait time.Duration) {
	if wait = b.Wait(now, r); wait == 0 {
		if b.whole.Before(now) {
			b.whole = now
		}
		b.whole = b.whole.Add(r.Every)
	}
	return wait
}

// Wait returns how long it takes until there may be another event, 0 if there may be one now.
func (b *Bucket) Wait(now time.Time, r Rate) time.Duration {
	owed := max(0, b.whole.Sub(now)) // that of a time as far away as the zero one must not grow
	return max(0, owed-time.Duration(r.Burst-1)*r.Every)
}
