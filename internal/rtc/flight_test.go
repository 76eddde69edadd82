//go:build !js

package rtc

import (
	"testing"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// What is not acknowledged is told for each lane, whatever was in the other one before.
func TestFlight(t *testing.T) {
	var f flight
	check := func(what string, all uint64, calls, ordered int) {
		t.Helper()
		for lane, want := range map[wire.Lane]int{wire.LaneCalls: calls, wire.LaneOrdered: ordered} {
			if got := f.unacknowledged(lane, all); got < want || got > want+flightStep {
				t.Errorf("%s: %d bytes of lane %d, want %d", what, got, lane, want)
			}
		}
	}
	check("nothing", 0, 0, 0)
	for range 100_000 {
		f.add(wire.LaneCalls, 100)
	}
	check("calls, all acknowledged", 0, 0, 0)
	check("calls", 1_000_000, 1_000_000, 0)
	for range 200 {
		f.add(wire.LaneOrdered, 16<<10)
	}
	check("ordered messages behind calls", 200*16<<10, 0, 200*16<<10)
	check("both", 200*16<<10+5000, 5000, 200*16<<10)
	f.add(wire.LaneCalls, 100)
	check("a call behind them", 2<<20, 100, 2<<20-100)
}
