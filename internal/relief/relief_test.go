package relief_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chatixia-ai/mesh/internal/relief"
)

// A reader takes work from a channel and does it itself.
type reader struct {
	work  chan func()
	post  *relief.Post
	ended chan struct{}
	all   atomic.Int32 // goroutines that have read
}

func read(w *relief.Watch) *reader {
	r := &reader{work: make(chan func()), ended: make(chan struct{})}
	r.post = relief.NewPost(w, r.run)
	go r.run()
	return r
}

func (r *reader) run() {
	r.all.Add(1)
	for work := range r.work {
		if !r.post.Do(work) {
			return
		}
	}
	close(r.ended)
}

// Short work is done by who reads; during long work another goroutine reads on, and the one that worked ends.
func TestRelief(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w relief.Watch
		r := read(&w)
		done := 0
		for range 100 {
			r.work <- func() { done++ }
		}
		hold := make(chan struct{})
		start := time.Now()
		r.work <- func() { <-hold }
		r.work <- func() { done++ } // would never be taken
		if took := time.Since(start); took > 10*time.Millisecond {
			t.Errorf("work that takes long has held up reading for %v", took)
		}
		close(hold)
		r.work <- func() { done++ }
		close(r.work)
		<-r.ended
		if done != 102 || r.all.Load() != 2 {
			t.Errorf("%d of 102 works were done, by %d goroutines, want 2", done, r.all.Load())
		}
		<-time.After(time.Second) // the watch ends by itself, or the test would not
	})
}

// Work may end its goroutine; then another goroutine reads on.
func TestGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w relief.Watch
		r := read(&w)
		hold := make(chan struct{})
		r.work <- runtime.Goexit
		r.work <- func() { <-hold; runtime.Goexit() }
		r.work <- func() {}
		close(hold)
		r.work <- func() {}
		close(r.work)
		<-r.ended
		if n := r.all.Load(); n != 3 {
			t.Errorf("%d goroutines have read, want 3", n)
		}
		w.Close()
	})
}

// Many posts, with work that takes about as long as the watch waits: none reads twice at a time, and no work is lost.
func TestPosts(t *testing.T) {
	var w relief.Watch
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			r := read(&w)
			done := 0 // the race detector sees two who read at a time
			for i := range 300 {
				r.work <- func() { done++ }
				if i%10 == 0 {
					var mu sync.Mutex
					mu.Lock()
					r.work <- func() { mu.Lock() } //nolint:staticcheck // it is held up until the next one is taken
					r.work <- mu.Unlock
				}
			}
			close(r.work)
			<-r.ended
			if done != 300 {
				t.Errorf("%d of 300 works were done", done)
			}
		})
	}
	all.Wait()
	w.Close()
	w.Close()
}
