package main

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	// stall is how long nothing may arrive in a round that counts. Only SCTP's
	// retransmission timer, whose minimum is a second, takes longer here. pion
	// does not report how often it fired.
	stall = 200 * time.Millisecond
	// joinStall is the same for the making of a link, where ICE repeats a check
	// after 200 ms, which is its own affair.
	joinStall = 900 * time.Millisecond
	// watchInterval is how often the watch looks; it costs next to nothing.
	watchInterval = 10 * time.Millisecond
	// roundTimeout is when a round is given up.
	roundTimeout = time.Minute
)

// A counter counts messages where they arrive.
type counter struct {
	n, goal atomic.Int64
	hit     chan struct{} // buffered 1: the goal was reached
}

func newCounter() *counter { return &counter{hit: make(chan struct{}, 1)} }

func (c *counter) add(k int64) {
	n, goal := c.n.Add(k), c.goal.Load()
	if n >= goal && n-k < goal {
		c.hit <- struct{}{}
	}
}

// expect sets the goal, k messages from now. Nothing may be on its way.
func (c *counter) expect(k int64) { c.goal.Store(c.n.Load() + k) }

// wait blocks until the goal is reached, or ctx ends.
func (c *counter) wait(ctx context.Context) error {
	select {
	case <-c.hit:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// watch begins to watch the counter. The function that it returns ends that, and
// returns for how long the counter stood still at most.
func (c *counter) watch() (longest func() time.Duration) {
	done, result := make(chan struct{}), make(chan time.Duration)
	go func() {
		tick := time.NewTicker(watchInterval)
		defer tick.Stop()
		last, since, most := c.n.Load(), time.Now(), time.Duration(0)
		for {
			select {
			case <-tick.C:
			case <-done:
				result <- max(most, time.Since(since))
				return
			}
			most = max(most, time.Since(since))
			if n := c.n.Load(); n != last {
				last, since = n, time.Now()
			}
		}
	}()
	return func() time.Duration {
		close(done)
		return <-result
	}
}
