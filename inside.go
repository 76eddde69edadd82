package mesh

import (
	"bytes"
	"runtime"
	"slices"
	"sync"
)

// insiders knows the goroutines in which handlers and callbacks of one mesh run,
// so that Close called from one of them need not wait for itself.
//
// Go gives a goroutine no identity to compare but the number in its stack trace,
// which takes microseconds to get: too long for each message. So a handler's
// goroutine is known by the one that started it, of which there are few. The
// alternatives are worse: a context argument would burden every caller of Close,
// and the functions on the stack do not say which mesh a handler belongs to.
type insiders struct {
	mu        sync.Mutex
	callbacks map[string]bool // goroutines that run a callback now
	starters  []string        // goroutines that start handlers, the latest last
}

// maxStarters is how many of them are remembered. There is a new one after each
// loss of the sidecar.
const maxStarters = 16

// starts notes that the calling goroutine starts handlers.
func (in *insiders) starts() {
	id := goroutineID()
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.starters) == maxStarters {
		in.starters = in.starters[1:]
	}
	in.starters = append(in.starters, id)
}

// run runs a callback. One may lead to another in the same goroutine.
func (in *insiders) run(f func()) {
	id := goroutineID()
	in.mu.Lock()
	nested := in.callbacks[id]
	if in.callbacks == nil {
		in.callbacks = make(map[string]bool)
	}
	in.callbacks[id] = true
	in.mu.Unlock()
	defer func() {
		if !nested {
			in.mu.Lock()
			delete(in.callbacks, id)
			in.mu.Unlock()
		}
	}()
	f()
}

// here tells whether the calling goroutine runs a handler or callback.
func (in *insiders) here() bool {
	id, starter := goroutineID(), starterID()
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.callbacks[id] || slices.Contains(in.starters, starter)
}

// goroutineID returns the number in "goroutine 7 [running]: ...".
func goroutineID() string {
	var buf [40]byte
	head := buf[:runtime.Stack(buf[:], false)]
	head = bytes.TrimPrefix(head, []byte("goroutine "))
	id, _, _ := bytes.Cut(head, []byte(" "))
	return string(id)
}

// starterID returns the number in "created by ... in goroutine 7", which stands
// near the end of a stack trace.
func starterID() string {
	stack := make([]byte, 64<<10) // more than the hundred frames that are printed take
	stack = stack[:runtime.Stack(stack, false)]
	const before = " in goroutine "
	_, id, _ := bytes.Cut(stack[max(0, bytes.LastIndex(stack, []byte(before))):], []byte(before))
	id, _, _ = bytes.Cut(id, []byte("\n"))
	return string(id)
}
