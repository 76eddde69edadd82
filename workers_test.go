package mesh

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
)

// Everything runs at once, few goroutines stay, each knows where it is, and one
// that a handler ended is not missed.
func TestWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkers()
		if w.here() {
			t.Error("the test's goroutine counts as a worker")
		}
		const n = 100
		var all, together sync.WaitGroup
		together.Add(n)
		for range 2 {
			for i := range n {
				all.Add(1)
				w.run(func() {
					defer all.Done()
					if !w.here() {
						t.Error("a worker does not know itself")
					}
					if i == 0 {
						runtime.Goexit()
					}
				})
			}
			all.Wait()
		}
		for range n {
			w.run(func() {
				together.Done()
				together.Wait() // which takes all of them
			})
		}
		synctest.Wait()
		if len(w.ids) != maxIdleWorkers || w.idle != maxIdleWorkers {
			t.Errorf("%d goroutines are kept and %d idle, want %d", len(w.ids), w.idle, maxIdleWorkers)
		}
		w.end()
		if len(w.ids) != 0 || w.idle != 0 {
			t.Errorf("%d goroutines are known and %d idle after the end", len(w.ids), w.idle)
		}
	})
}
