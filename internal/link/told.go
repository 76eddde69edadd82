package link

import "sync"

// Told is what another party has been told of a state that a mutex guards, and the means to keep that
// true: nothing is told with the mutex held, one goroutine tells at a time and looks again before it
// stops, so that what the other party hears is in order and the last word is right. Its fields are
// guarded by that mutex, too. The zero value says that the zero value of T has been told.
type Told[T comparable] struct {
	Last    T    // what was told last
	Again   bool // it has to be told anew, even if it is the same
	telling bool
}

// A Teller has a state to tell.
type Teller[T comparable] interface {
	// WantLocked returns what is to be told, where last is what was. It is called with the mutex held.
	WantLocked(last T) T
	// Tell tells it, without the mutex.
	Tell(was, want T)
}

// SettleLocked tells what is to be told, or leaves it to another goroutine that is telling already. It is
// called with mu held, and releases it while it tells.
func (t *Told[T]) SettleLocked(mu *sync.Mutex, of Teller[T]) {
	if t.telling {
		return
	}
	t.telling = true
	for {
		was := t.Last
		want := of.WantLocked(was)
		if want == was && !t.Again {
			break
		}
		t.Last, t.Again = want, false
		mu.Unlock()
		of.Tell(was, want)
		mu.Lock()
	}
	t.telling = false
}
