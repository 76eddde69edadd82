package testutil

import (
	"testing"
	"time"
)

const (
	// Patience bounds each wait of this package. It is far more than anything takes, even on a busy machine, and
	// more than a request's timeout of 30 s: it is only there to name what hangs.
	Patience = 90 * time.Second
	// pollInterval is the time between two looks at a condition.
	pollInterval = 2 * time.Millisecond
)

// Eventually blocks until ok returns true, and fails the test if that takes longer than Patience. It is for
// conditions that no event announces. It must run on the goroutine of the test.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			if !ok() { // a machine that stood still may have left no time for another look
				t.Fatalf("not within %s: %s", Patience, what)
			}
			return
		}
	}
}

// Take returns the next value of a channel, the zero value if it is closed, and fails the test if none comes within
// Patience. It must run on the goroutine of the test.
func Take[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	select {
	case v := <-c:
		return v
	case <-deadline.C:
	}
	select {
	case v := <-c:
		return v
	default:
	}
	t.Fatalf("not within %s: %s", Patience, what)
	panic("unreachable")
}

// await calls look until it returns nil, for which it returns true, or Patience is over. What look returns is closed when
// it is time to look again.
func await(look func() (more <-chan struct{})) bool {
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	for {
		more := look()
		if more == nil {
			return true
		}
		select {
		case <-more:
		case <-deadline.C:
			return look() == nil
		}
	}
}
