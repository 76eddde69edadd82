//go:build !js

package rtc

import (
	"testing"
	"time"

	"github.com/pion/webrtc/v4"
)

// The age of what was seen does not depend on the clock on the wall, which may be set.
func TestSighting(t *testing.T) {
	start := time.Now()
	var x sighting
	for i, step := range []struct {
		last webrtc.StatsTimestamp
		news bool
		age  time.Duration // after that
	}{
		{0, false, start.Sub(time.Time{})},
		{1000, true, 0},
		{1000, false, time.Second},
		{3_600_000, true, 0}, // set forward
		{2000, true, 0},      // set back
		{2000, false, time.Second},
		{0, false, 2 * time.Second},
	} {
		now := start.Add(time.Duration(i) * time.Second)
		if news := x.look(step.last, now); news != step.news {
			t.Errorf("look %d: news %t, want %t", i, news, step.news)
		}
		if age := now.Sub(x.at); age != step.age && i > 0 {
			t.Errorf("look %d: age %v, want %v", i, age, step.age)
		}
	}
}
