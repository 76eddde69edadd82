package mesh

import (
	"bytes"
	"runtime"
	"sync"
)

// goroutines are those that run a handler or callback of one mesh, so that Close
// called from one of them need not wait for itself.
//
// Go gives a goroutine no identity to compare but the number in its stack trace.
// The alternatives are worse: a context argument would burden every caller of
// Close, and the functions on the stack do not say which mesh a handler belongs
// to.
type goroutines struct{ ids sync.Map }

func (g *goroutines) has(id string) bool {
	_, ok := g.ids.Load(id)
	return ok
}

// run runs f as one of them. A goroutine that is one already stays one.
func (g *goroutines) run(f func()) {
	id := goroutineID()
	if _, nested := g.ids.LoadOrStore(id, nil); !nested {
		defer g.ids.Delete(id)
	}
	f()
}

// goroutineID returns the number in "goroutine 7 [running]: ...".
func goroutineID() string {
	var buf [40]byte
	head := buf[:runtime.Stack(buf[:], false)]
	head = bytes.TrimPrefix(head, []byte("goroutine "))
	id, _, _ := bytes.Cut(head, []byte(" "))
	return string(id)
}
