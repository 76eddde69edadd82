package relief

import "sync"

// A Guest is a goroutine that waits for something which one that reads is about to bring. Where the other one has nothing to read, the guest
// may read in its place until that has come: then it need not be woken. The zero Guest waits, and has no place.
type Guest struct {
	// For is the id of the request whose response the guest waits for.
	For string

	mu    sync.Mutex
	over  bool
	place Place
}

// A Place is where a guest reads.
type Place interface {
	// Interrupt has a guest that waits for something to read look whether it is over.
	Interrupt()
}

// Leave is called when what the guest waits for has come, or is not wanted any more. It may be called from any goroutine, repeatedly.
func (g *Guest) Leave() {
	g.mu.Lock()
	g.over = true
	place := g.place
	g.mu.Unlock()
	if place != nil {
		place.Interrupt()
	}
}

// Over reports whether Leave was called.
func (g *Guest) Over() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.over
}

// Sit says where the guest reads; nil: nowhere any more.
func (g *Guest) Sit(at Place) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.place = at
}
