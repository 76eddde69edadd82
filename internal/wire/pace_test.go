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
			heard bool
			lone  bool
		}{
			{0, false, true}, // the first
			{0, false, false},
			{49 * time.Microsecond, false, false},
			{49 * time.Microsecond, false, false}, // each counts from the one before it
			{50 * time.Microsecond, false, true},
			{time.Hour, false, true},
			{0, true, true}, // it may be a response
			{0, false, false},
			{time.Hour, true, true},
			{0, false, false}, // what was heard counts once
		} {
			<-time.After(step.after)
			if step.heard {
				p.Heard()
			}
			if got := p.Lone(); got != step.lone {
				t.Errorf("line %d, %s after the one before: lone %t", i, step.after, got)
			}
		}
	})
}
