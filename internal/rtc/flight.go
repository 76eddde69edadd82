//go:build !js

package rtc

import "github.com/chatixia-ai/mesh/internal/wire"

const (
	// flightMarks and flightStep are how many places of what was handed over a flight remembers, and how many bytes are
	// between two: more than budgetMost together.
	flightMarks = 80
	flightStep  = 64 << 10
)

// A flight is what was handed over to the data channel, which acknowledges in order, to tell how much of a lane is not yet
// acknowledged.
type flight struct {
	handed mark
	marks  []mark // the latest ones, in order
}

// A mark is a place: how many bytes were handed over until then, in all and of each lane.
type mark struct {
	total uint64
	lanes [wire.Lanes]uint64
}

// add notes n bytes of a lane.
func (f *flight) add(of wire.Lane, n int) {
	if last := len(f.marks) - 1; last < 0 || f.handed.total-f.marks[last].total >= flightStep {
		if len(f.marks) == flightMarks {
			f.marks = f.marks[:copy(f.marks, f.marks[1:])]
		}
		f.marks = append(f.marks, f.handed)
	}
	f.handed.total += uint64(n)
	f.handed.lanes[of] += uint64(n)
}

// unacknowledged returns how many bytes of a lane are not acknowledged, of so many in all: at most by flightStep too many.
func (f *flight) unacknowledged(of wire.Lane, all uint64) int {
	n := min(all, f.handed.lanes[of])
	for i := len(f.marks) - 1; i >= 0; i-- {
		if m := f.marks[i]; m.total+all <= f.handed.total {
			return int(min(n, f.handed.lanes[of]-m.lanes[of]))
		}
	}
	return int(n)
}
