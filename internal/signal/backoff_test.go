package signal

import (
	"testing"
	"time"
)

func TestBackoff(t *testing.T) {
	const last = 0.999999
	for _, c := range []struct {
		n        int
		min, max time.Duration
	}{
		{0, 100 * time.Millisecond, 500 * time.Millisecond},
		{1, time.Second, 2 * time.Second},
		{2, time.Second, 4 * time.Second},
		{4, time.Second, 16 * time.Second},
		{5, time.Second, 30 * time.Second},
		{1000000, time.Second, 30 * time.Second},
	} {
		if got := backoff(c.n, 0); got != c.min {
			t.Errorf("backoff(%d, 0) = %v, want %v", c.n, got, c.min)
		}
		if got := backoff(c.n, last); got > c.max || got < c.max-time.Millisecond {
			t.Errorf("backoff(%d, %v) = %v, want just under %v", c.n, last, got, c.max)
		}
	}
	if lo, hi := slowBackoff(0), slowBackoff(last); lo != 15*time.Second || hi > 30*time.Second {
		t.Errorf("slowBackoff from %v to %v, want 15s to 30s", lo, hi)
	}
}
