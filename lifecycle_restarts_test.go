package mesh

import (
	"testing"
	"time"
)

func TestRestarts(t *testing.T) {
	const gaveUp = -1
	ms := func(n ...int) []time.Duration {
		d := make([]time.Duration, len(n))
		for i, n := range n {
			d[i] = time.Duration(n) * time.Millisecond
		}
		return d
	}
	for _, tc := range []struct {
		name    string
		mode    Mode
		uptimes []time.Duration
		most    []time.Duration // the longest wait after each; the shortest is half of it
	}{
		{"doubles and gives up", SelfExec, ms(0, 0, 0, 0, 0, 0, 0), ms(50, 100, 200, 400, 800, gaveUp, gaveUp)},
		{"binary too", Binary, ms(9999, 9999, 9999, 9999, 9999, 9999), ms(50, 100, 200, 400, 800, gaveUp)},
		{"a long life starts over", SelfExec, ms(0, 0, 0, 0, 0, 10000, 0, 0), ms(50, 100, 200, 400, 800, 50, 50, 100)},
		{"and five short ones follow it", SelfExec, ms(10000, 0, 0, 0, 0, 0, 0), ms(50, 50, 100, 200, 400, 800, gaveUp)},
		{"only long lives", Binary, ms(10000, 60000, 10000, 10000, 10000, 10000, 10000), ms(50, 50, 50, 50, 50, 50, 50)},
		{"attach never gives up", Attach, ms(0, 0, 0, 0, 0, 0, 0, 0, 0, 0), ms(50, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000)},
		{"nor does in-process", InProcess, ms(1, 1, 1, 1, 1, 1, 1), ms(50, 100, 200, 400, 800, 1600, 3200)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRestarts(tc.mode)
			for i, up := range tc.uptimes {
				delay, giveUp := r.next(up)
				most := tc.most[i]
				if giveUp != (most < 0) {
					t.Fatalf("end %d after %v: giveUp = %t", i+1, up, giveUp)
				}
				if !giveUp && (delay < most/2 || delay > most) {
					t.Errorf("end %d after %v: wait %v, want %v to %v", i+1, up, delay, most/2, most)
				}
			}
		})
	}
}

func TestRestartsJitter(t *testing.T) {
	seen := make(map[time.Duration]bool)
	for range 20 {
		r := newRestarts(Attach)
		d, _ := r.next(0)
		seen[d] = true
	}
	if len(seen) < 2 {
		t.Error("20 agents that lost their sidecars together would all come back together")
	}
}
