package signal

import "time"

const (
	minBackoff = time.Second
	maxBackoff = 30 * time.Second
	// firstBackoff spreads the peers that a restarted server has lost all at once.
	firstBackoff = 500 * time.Millisecond
	// stableAfter is how long a connection must have been registered for its end to count as the first
	// failure again: a server that accepts and hangs up must not be dialed in a tight loop.
	stableAfter = 5 * time.Second
)

// backoff returns the delay after failure number n, from 0, in a row, with random in [0,1).
func backoff(n int, random float64) time.Duration {
	if n == 0 {
		return firstBackoff/5 + scale(firstBackoff*4/5, random)
	}
	ceiling := maxBackoff
	if n < 5 {
		ceiling = min(minBackoff<<n, maxBackoff)
	}
	return minBackoff + scale(ceiling-minBackoff, random)
}

// slowBackoff returns the delay after a failure that only a person can mend.
func slowBackoff(random float64) time.Duration {
	return maxBackoff/2 + scale(maxBackoff/2, random)
}

func scale(d time.Duration, random float64) time.Duration {
	return time.Duration(float64(d) * random)
}
