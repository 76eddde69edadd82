// Package relief lets a goroutine that reads do itself what the things that it reads call for. That spares a change of
// goroutine, which takes longer than most such work. While the work takes long another goroutine reads on.
package relief

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// patience is how long work may hold up reading; at most twice as long does it.
	patience = 5 * time.Millisecond
	// restful is how many times in a row a post is found without work before it is looked at no more.
	restful = 64
)

// A Watch relieves those who read at its posts. Its goroutine lives only while there is such work.
type Watch struct {
	mu    sync.Mutex
	posts map[*Post]struct{}
	stop  chan struct{} // ends the goroutine; nil while there is none
	wg    sync.WaitGroup
}

// Close ends the goroutine of the Watch, if there is one, and waits for it. There is to be no work any more.
func (w *Watch) Close() {
	w.mu.Lock()
	if w.stop != nil {
		close(w.stop)
		w.stop = nil
	}
	w.mu.Unlock()
	w.wg.Wait()
}

// A Post is a place where one goroutine reads, and in its turn another.
type Post struct {
	watch  *Watch
	readOn func()
	state  atomic.Uint64 // odd while the one who reads does work
	joined atomic.Bool   // it is among watch.posts

	// Of the watch.
	seen uint64
	rest int
}

// NewPost returns a post, at which the caller reads. readOn is called, in a goroutine of its own, to read in the place of who works; it
// ends when Do says so.
func NewPost(w *Watch, readOn func()) *Post { return &Post{watch: w, readOn: readOn} }

// Do does work, and reports whether the caller is to read on: if not, another goroutine has begun to. Who reads calls it. work may also
// end its goroutine.
func (p *Post) Do(work func()) (readOn bool) {
	turn := p.state.Add(1)
	if !p.joined.Load() {
		p.watch.join(p)
	}
	returned := false
	defer func() {
		readOn = p.state.CompareAndSwap(turn, turn+1)
		if readOn && !returned {
			go p.readOn()
		}
	}()
	work()
	returned = true
	return
}

func (w *Watch) join(p *Post) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.joined.Store(true)
	p.rest = 0
	if w.posts == nil {
		w.posts = make(map[*Post]struct{})
	}
	w.posts[p] = struct{}{}
	if w.stop == nil {
		stop := make(chan struct{})
		w.stop = stop
		w.wg.Go(func() { w.run(stop) })
	}
}

func (w *Watch) run(stop chan struct{}) {
	tick := time.NewTicker(patience)
	defer tick.Stop()
	for w.look(stop) {
		select {
		case <-tick.C:
		case <-stop:
			return
		}
	}
}

// look relieves those who have been at work since the last look, and reports whether there are posts to look at.
func (w *Watch) look(stop chan struct{}) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stop != stop {
		return false
	}
	for p := range w.posts {
		p.lookLocked()
	}
	if len(w.posts) == 0 {
		w.stop = nil
	}
	return w.stop != nil
}

func (p *Post) lookLocked() {
	switch state := p.state.Load(); {
	case state != p.seen:
		p.seen, p.rest = state, 0
	case state%2 == 1:
		if p.state.CompareAndSwap(state, state+1) {
			go p.readOn()
		}
	default:
		if p.rest++; p.rest < restful {
			return
		}
		delete(p.watch.posts, p)
		if p.joined.Store(false); p.state.Load() != state { // work has begun that has not seen this
			p.joined.Store(true)
			p.watch.posts[p] = struct{}{}
		}
	}
}
