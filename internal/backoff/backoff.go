// Package backoff spaces out the attempts at what has failed.
package backoff

import (
	"math/rand/v2"
	"time"
)

// Delay returns how long to wait after failure number n, from 0, in a row: first, doubled n times, at most
// most. Its second half is random, so that parties that failed together do not try again together.
func Delay(first, most time.Duration, n int) time.Duration {
	d := most
	if n < 32 && first<<n < most && first<<n > 0 {
		d = first << n
	}
	return d/2 + rand.N(d/2+1)
}
