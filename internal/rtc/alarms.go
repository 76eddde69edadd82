//go:build !js

package rtc

import (
	"sync"
	"time"
)

// alarms are functions that are called later. Their goroutines end with them.
type alarms struct {
	done chan struct{}

	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

// after calls f after d, unless off is closed before, or the alarms are.
func (a *alarms) after(d time.Duration, off <-chan struct{}, f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	a.wg.Go(func() {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			f()
		case <-off:
		case <-a.done:
		}
	})
}

// close ends what waits, and returns when what was called has returned.
func (a *alarms) close() {
	a.mu.Lock()
	if !a.closed {
		a.closed = true
		close(a.done)
	}
	a.mu.Unlock()
	a.wg.Wait()
}
