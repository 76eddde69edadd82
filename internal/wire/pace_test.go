package wire_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p wire.Pace
		for i, step := range []struct {
			after time.Duration
			lone  bool
		}{
			{0, true}, // the first
			{0, false},
			{49 * time.Microsecond, false},
			{49 * time.Microsecond, false}, // each counts from the one before it
			{50 * time.Microsecond, true},
			{time.Hour, true},
		} {
			<-time.After(step.after)
			if got := p.Lone(); got != step.lone {
				t.Errorf("line %d, %s after the one before: lone %t", i, step.after, got)
			}
		}
	})
}
