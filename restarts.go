package mesh

import (
	"math/rand/v2"
	"time"
)

const (
	restartFirst = 50 * time.Millisecond
	restartMost  = 5 * time.Second
	// longLife is how long a sidecar must have run for its end to say nothing
	// about the next one.
	longLife = 10 * time.Second
	// maxShortLives is how many in a row make a crash loop.
	maxShortLives = 6
)

// restarts decides when to start the next sidecar. It has no clock: the caller
// measures and waits.
type restarts struct {
	// spawned: by this program, so that another try changes nothing. What is
	// attached to may come back after any time.
	spawned bool
	short   int // lives in a row that were short
}

func newRestarts(m Mode) restarts {
	return restarts{spawned: m == SelfExec || m == Binary}
}

// next is called when a sidecar has ended that was connected for uptime, which
// is 0 for one that did not come up. It returns how long to wait before the next
// start, or that there should be none. The wait doubles from 50 ms to 5 s; its
// second half is random, so that agents that lost their sidecars together do
// not return together.
func (r *restarts) next(uptime time.Duration) (delay time.Duration, giveUp bool) {
	if uptime >= longLife {
		r.short = 0
	} else {
		r.short++
	}
	if r.spawned && r.short >= maxShortLives {
		return 0, true
	}
	full := restartFirst
	for i := 1; i < r.short && full < restartMost; i++ {
		full *= 2
	}
	full = min(full, restartMost)
	return full/2 + rand.N(full/2+1), false
}
