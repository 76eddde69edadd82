package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestCounterReachesGoal(t *testing.T) {
	c := newCounter()
	for range 3 {
		c.expect(10)
		for range 5 {
			c.add(2)
		}
		if err := c.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCounterWaitEnds(t *testing.T) {
	c := newCounter()
	c.expect(1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.wait(ctx); err == nil {
		t.Error("wait returned without the goal being reached")
	}
}

// pausing counts for a second, with a gap.
func pausing(c *counter, gap time.Duration) {
	for i := range 1000 {
		time.Sleep(time.Millisecond) // of the bubble's clock
		if i == 500 {
			time.Sleep(gap)
		}
		c.add(1)
	}
}

func TestWatchSeesStall(t *testing.T) {
	for _, c := range []struct {
		gap     time.Duration
		stalled bool
	}{
		{0, false},
		{100 * time.Millisecond, false},
		{time.Second, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newCounter()
			longest := n.watch()
			pausing(n, c.gap)
			got := longest()
			if (got > stall) != c.stalled || got < c.gap-watchInterval || got > c.gap+2*watchInterval {
				t.Errorf("gap of %v: the watch saw %v", c.gap, got)
			}
		})
	}
}

func TestWatchSeesStallAtEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newCounter()
		longest := n.watch()
		n.add(1)
		time.Sleep(time.Second)
		if got := longest(); got < 900*time.Millisecond {
			t.Errorf("the watch saw %v of a stall that lasted until the end", got)
		}
	})
}
