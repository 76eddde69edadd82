package mesh

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
)

// Everything runs at once, few goroutines stay, and one that a handler ended is
// not missed.
func TestWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkers()
		const n = 100
		var all, together sync.WaitGroup
		together.Add(n)
		for range 2 {
			for i := range n {
				all.Add(1)
				w.run(func() {
					defer all.Done()
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
		if w.all != maxIdleWorkers || w.idle != maxIdleWorkers {
			t.Errorf("%d goroutines are kept and %d idle, want %d", w.all, w.idle, maxIdleWorkers)
		}
		w.end()
		synctest.Wait()
		if w.all != 0 || w.idle != 0 {
			t.Errorf("%d goroutines are left and %d idle after the end", w.all, w.idle)
		}
	})
}
