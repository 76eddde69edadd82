package backoff

import (
	"math"
	"testing"
	"time"
)

func TestDelay(t *testing.T) {
	const first, most = 100 * time.Millisecond, 10 * time.Second
	for n, want := range map[int]time.Duration{
		0: first, 1: 2 * first, 6: 64 * first, 7: most, 31: most, 32: most, math.MaxInt: most,
	} {
		seen := make(map[time.Duration]bool)
		for range 100 {
			d := Delay(first, most, n)
			if d < want/2 || d > want {
				t.Errorf("failure %d: %v, want %v to %v", n, d, want/2, want)
			}
			seen[d] = true
		}
		if len(seen) < 2 {
			t.Errorf("failure %d: parties that failed together would all come back together", n)
		}
	}
	if d := Delay(most, most, 0); d < most/2 || d > most {
		t.Errorf("a constant delay is %v", d)
	}
}
