package pace_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/chatixia-ai/mesh/internal/pace"
)

var rate = pace.Rate{Burst: 3, Every: time.Second}

func TestBucket(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var b pace.Bucket
	for _, step := range []struct{ at, wait time.Duration }{
		{0, 0}, {0, 0}, {0, 0}, // the burst
		{0, time.Second},
		{time.Second / 4, 3 * time.Second / 4}, // what is refused costs nothing
		{time.Second, 0},
		{time.Second, time.Second},
		{time.Hour, 0}, {time.Hour, 0}, {time.Hour, 0}, // no more than a burst, however long it rests
		{time.Hour, time.Second},
	} {
		now := start.Add(step.at)
		if got := b.Wait(now, rate); got != step.wait {
			t.Errorf("after %v one has to wait %v, want %v", step.at, got, step.wait)
		}
		if got := b.Take(now, rate); got != step.wait {
			t.Errorf("after %v taking one needs %v, want %v", step.at, got, step.wait)
		}
	}
	if want := start.Add(time.Hour + 3*time.Second); !b.Whole().Equal(want) {
		t.Errorf("whole at %v, want %v", b.Whole(), want)
	}
}

func TestSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := pace.NewSources[int](rate)
		take := func(source, want int) {
			t.Helper()
			n := 0
			for s.Wait(source) == 0 && s.Take(source) {
				n++
			}
			if n != want || s.Take(source) {
				t.Errorf("source %d may do %d, want %d", source, n, want)
			}
		}
		take(1, 3)
		take(2, 3)
		<-time.After(2 * time.Second)
		take(1, 2)

		// However many sources there are, they take little memory: those for which there is no room share a bucket.
		for i := range 20_000 {
			s.Take(1000 + i)
		}
		take(2, 2)
		take(99_999, 0)
		<-time.After(3 * time.Second) // then the others have done nothing for long enough
		take(99_999, 3)
	})
}
