package testutil

import (
	"slices"
	"sync"
	"testing"
)

// A Record keeps values in the order in which they are added. Its methods may be called concurrently; the zero value is
// empty.
type Record[T any] struct {
	mu   sync.Mutex
	all  []T
	more chan struct{} // closed by the next Add; nil if no Wait is blocked
}

// Add appends v.
func (r *Record[T]) Add(v T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, v)
	if r.more != nil {
		close(r.more)
		r.more = nil
	}
}

// All returns the values that have been added so far.
func (r *Record[T]) All() []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

// Len returns how many values have been added so far.
func (r *Record[T]) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.all)
}

// Wait blocks until ok returns true for the values so far, and returns them. It fails the test if that takes longer
// than Patience. It must run on the goroutine of the test.
func (r *Record[T]) Wait(t testing.TB, what string, ok func([]T) bool) (all []T) {
	t.Helper()
	if !await(func() <-chan struct{} {
		r.mu.Lock()
		if r.more == nil {
			r.more = make(chan struct{})
		}
		more := r.more
		all = slices.Clone(r.all)
		r.mu.Unlock()
		if ok(all) {
			return nil
		}
		return more
	}) {
		t.Fatalf("not within %s: %s; there are %d so far", Patience, what, len(all))
	}
	return all
}
