//go:build !js

package rtc

import (
	"testing"
	"time"
)

func noRoundTrip() time.Duration { return 0 }

// A line is a path of some rate and delay, whose far end acknowledges at once.
type line struct {
	rate  float64 // bytes per second
	rtt   time.Duration
	limit float64       // of what SCTP has on its way, as after losses; 0: none
	late  time.Duration // by which acknowledgements come later than ICE's responses

	now       time.Time
	delivered float64
}

// use has a sender keep the line as busy as its budget allows for so many round trips. The budget must not more than
// double in any of them.
func (l *line) use(t *testing.T, b *budget, trips int) {
	t.Helper()
	for range trips {
		before := b.size()
		flight := float64(before)
		if l.limit > 0 {
			flight = min(flight, l.limit)
		}
		took := max((l.rtt + l.late).Seconds(), flight/l.rate, budgetSlack.Seconds())
		l.now = l.now.Add(time.Duration(took * float64(time.Second)))
		l.delivered += min(l.rate, flight/max((l.rtt+l.late).Seconds(), 1e-4)) * took
		b.observe(l.now, uint64(l.delivered))
		if b.size() > 2*before {
			t.Errorf("the budget went from %d to %d bytes in a round trip", before, b.size())
		}
	}
}

func TestBudget(t *testing.T) {
	const mbit = 1e6 / 8
	for name, tt := range map[string]struct {
		rate        float64
		rtt         time.Duration
		trips       int // until it fits
		least, most float64
	}{
		"a slow line":                   {2 * mbit, 50 * time.Millisecond, 50, budgetLeast, budgetLeast},
		"100 Mbit/s":                    {100 * mbit, 20 * time.Millisecond, 20, 300e3, 500e3},
		"100 Mbit/s, far":               {100 * mbit, 100 * time.Millisecond, 50, 1.25e6, 1.9e6},
		"loopback":                      {50e6, 200 * time.Microsecond, 50, 400e3, 600e3},
		"more than the peer takes":      {10_000 * mbit, 100 * time.Millisecond, 100, budgetMost, budgetMost},
		"a line whose delay is unknown": {100 * mbit, 0, 100, budgetEager, budgetEager},
	} {
		t.Run(name, func(t *testing.T) {
			l := &line{rate: tt.rate, rtt: tt.rtt, now: time.Now()}
			b := newBudget(func() time.Duration { return l.rtt })
			l.use(t, b, tt.trips)
			for range 2 * budgetRates {
				l.use(t, b, 1)
				if size := float64(b.size()); size < tt.least || size > tt.most {
					t.Fatalf("the budget is %.0f bytes, want %.0f to %.0f", size, tt.least, tt.most)
				}
			}
		})
	}
}

// settled returns a line of 100 Mbit/s and 20 ms, and a budget that fits.
func settled(t *testing.T) (*line, *budget) {
	l := &line{rate: 12.5e6, rtt: 20 * time.Millisecond, now: time.Now()}
	b := newBudget(func() time.Duration { return l.rtt })
	l.use(t, b, 2*budgetRates)
	return l, b
}

// What arrives while there is little to send says nothing about the path.
func TestBudgetIdle(t *testing.T) {
	l, b := settled(t)
	want := b.size()
	for range 10 * budgetRates {
		b.dry(0)
		l.now = l.now.Add(time.Second)
		l.delivered += 1000
		b.observe(l.now, uint64(l.delivered))
	}
	if b.size() != want {
		t.Errorf("after a pause the budget is %d bytes, want %d", b.size(), want)
	}
}

// The sender of a stream has its next slice ready a moment after the last. A path that is full meanwhile is still measured.
func TestBudgetPauses(t *testing.T) {
	l, b := settled(t)
	l.rate /= 10
	for range 2 * budgetRates {
		b.dry(b.size())
		l.use(t, b, 1)
	}
	if b.size() > 150e3 {
		t.Errorf("on a line of 10 Mbit/s the budget is %d bytes", b.size())
	}
}

// Acknowledgements that come all at once are no fast path.
func TestBudgetBurst(t *testing.T) {
	l, b := settled(t)
	want := b.size()
	l.now = l.now.Add(l.rtt)
	b.observe(l.now, uint64(l.delivered)) // nothing
	l.now = l.now.Add(l.rtt)
	l.delivered += 2 * l.rate * l.rtt.Seconds()
	b.observe(l.now, uint64(l.delivered))
	if b.size() > want {
		t.Errorf("after a burst the budget is %d bytes, want %d", b.size(), want)
	}
}

// Where the ends are slow to react, or others fill the line, everything takes longer than ICE's smallest round trip time says. A
// budget that followed that alone would be the limit of the rate that it follows, and fall to the least.
func TestBudgetLate(t *testing.T) {
	l, b := settled(t)
	l.late = 60 * time.Millisecond
	l.use(t, b, 4*budgetRates)
	if b.size() < budgetEager {
		t.Errorf("the budget falls to %d bytes, want %d", b.size(), budgetEager)
	}
}

// While SCTP recovers from a loss, little arrives; that does not make the budget the limit of what comes after.
func TestBudgetLoss(t *testing.T) {
	l, b := settled(t)
	want := b.size()
	l.limit = 20e3
	l.use(t, b, budgetRates/2)
	if b.size() < want*9/10 {
		t.Errorf("during a recovery the budget is %d bytes, want %d", b.size(), want)
	}
	l.use(t, b, budgetRates)
	if b.size() > want/4 {
		t.Errorf("with a tenth of the rate the budget stays at %d bytes, of %d", b.size(), want)
	}
}

// A path becomes another one, with notice (an ICE restart) or without.
func TestBudgetNewPath(t *testing.T) {
	for _, told := range []bool{true, false} {
		l, b := settled(t)
		l.rtt = 100 * time.Millisecond
		trips := 60
		if told {
			b.newPath()
		} else {
			trips += int(rttNews * rttEvery / l.rtt)
		}
		l.use(t, b, trips)
		if b.size() < 1_250_000 {
			t.Errorf("with a longer path (told: %t) the budget is %d bytes", told, b.size())
		}
	}
}
