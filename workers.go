package mesh

import (
	"bytes"
	"runtime"
	"sync"
)

// maxIdleWorkers is how many goroutines wait for the next handler.
const maxIdleWorkers = 4

// workers run the application's handlers and callbacks. All that is theirs runs
// here, which is how Close knows that it is called from one of them and cannot
// wait for it.
//
// A few goroutines are kept, since a new one begins with a small stack and has
// to grow it for nearly every handler, which takes longer than most of them.
type workers struct {
	wg   sync.WaitGroup
	next chan func()   // taken by an idle worker
	stop chan struct{} // closed by end

	mu   sync.Mutex
	idle int
	ids  map[string]bool // the goroutines
}

func newWorkers() *workers {
	return &workers{next: make(chan func()), stop: make(chan struct{}), ids: make(map[string]bool)}
}

// run starts f at once, whatever else is running.
func (w *workers) run(f func()) {
	select {
	case w.next <- f:
	default:
		w.wg.Go(func() { w.work(f) })
	}
}

func (w *workers) work(f func()) {
	// Go gives a goroutine no identity to compare but the number in its stack
	// trace. The alternatives are worse: a context argument would burden every
	// caller of Close, and the functions on the stack do not tell of which mesh
	// they are.
	id := goroutineID()
	w.mu.Lock()
	w.ids[id] = true
	w.mu.Unlock()
	defer func() { // f may also end the goroutine
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.ids, id)
	}()
	for f != nil {
		f()
		f = w.wait()
	}
}

// wait returns what to do next, or nil if the worker is to end.
func (w *workers) wait() func() {
	if !w.count(1) {
		return nil
	}
	defer w.count(-1)
	select {
	case f := <-w.next:
		return f
	case <-w.stop:
		return nil
	}
}

// count counts the idle workers, up to the maximum.
func (w *workers) count(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.idle+n > maxIdleWorkers {
		return false
	}
	w.idle += n
	return true
}

// here tells whether the calling goroutine is one of them.
func (w *workers) here() bool {
	id := goroutineID()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ids[id]
}

// end waits until all have returned. Nothing may be started any more.
func (w *workers) end() {
	close(w.stop)
	w.wg.Wait()
}

// goroutineID returns the number in "goroutine 7 [running]: ...".
func goroutineID() string {
	var buf [40]byte
	head := buf[:runtime.Stack(buf[:], false)]
	head = bytes.TrimPrefix(head, []byte("goroutine "))
	id, _, _ := bytes.Cut(head, []byte(" "))
	return string(id)
}
