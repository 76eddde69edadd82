package link

import (
	"slices"
	"sync"
	"testing"
)

// A dial is a state to be told. change, if set, is called once while it is told.
type dial struct {
	mu     sync.Mutex
	at     int
	told   Told[int]
	heard  [][2]int
	change func()
}

func (d *dial) WantLocked(int) int {
	if d.mu.TryLock() {
		panic("the mutex is not held")
	}
	return d.at
}

func (d *dial) Tell(was, want int) {
	d.heard = append(d.heard, [2]int{was, want})
	if f := d.change; f != nil {
		d.change = nil
		f()
	}
}

// turn sets the state and tells it.
func (d *dial) turn(at int) {
	d.mu.Lock() // free while the state is told
	defer d.mu.Unlock()
	d.at = at
	d.told.SettleLocked(&d.mu, d)
}

func TestTold(t *testing.T) {
	for name, tt := range map[string]struct {
		do   func(d *dial)
		want [][2]int
	}{
		"the zero value has been told": {func(d *dial) { d.turn(0) }, nil},
		"a change is told once":        {func(d *dial) { d.turn(1); d.turn(1) }, [][2]int{{0, 1}}},
		"one after another":            {func(d *dial) { d.turn(1); d.turn(2); d.turn(0) }, [][2]int{{0, 1}, {1, 2}, {2, 0}}},
		"what changes meanwhile is told after it": {func(d *dial) {
			d.change = func() { d.turn(5); d.turn(2) }
			d.turn(1)
		}, [][2]int{{0, 1}, {1, 2}}},
		"what changes back meanwhile, too": {func(d *dial) {
			d.change = func() { d.turn(0) }
			d.turn(1)
		}, [][2]int{{0, 1}, {1, 0}}},
		"again": {func(d *dial) {
			d.turn(1)
			d.told.Again = true
			d.turn(1)
			d.turn(1)
		}, [][2]int{{0, 1}, {1, 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			d := new(dial)
			tt.do(d)
			if !slices.Equal(d.heard, tt.want) {
				t.Errorf("told %v, want %v", d.heard, tt.want)
			}
			if d.told.Last != d.at || d.told.Again || d.told.telling {
				t.Errorf("left %+v at %d", d.told, d.at)
			}
		})
	}
}

// Many change a state at once: what is told is a chain, one thing at a time, that ends with the last state.
func TestToldConcurrently(t *testing.T) {
	d := new(dial)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 200 {
				d.turn(8*j + i + 1)
			}
		})
	}
	all.Wait()
	last := 0
	for _, h := range d.heard { // -race shows it if two told at a time
		if h[0] != last {
			t.Fatalf("told a change from %d after one to %d", h[0], last)
		}
		last = h[1]
	}
	if last != d.at {
		t.Errorf("%d was told last, and the state is %d", last, d.at)
	}
}
