package testutil

import (
	"bytes"
	"strings"
	"sync"
	"testing"
)

// A LogBuffer keeps what is written to it. Its methods may be called concurrently; the zero value is empty.
type LogBuffer struct {
	mu   sync.Mutex
	b    bytes.Buffer
	more chan struct{} // closed by the next Write; nil if no Wait is blocked
}

// Write appends p. It never fails.
func (l *LogBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
	return l.b.Write(p)
}

// String returns all that has been written so far.
func (l *LogBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Count returns how often substr has been written so far.
func (l *LogBuffer) Count(substr string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), substr)
}

// Wait blocks until substr has been written, and fails the test if that takes longer than Patience. It must run on the
// goroutine of the test.
func (l *LogBuffer) Wait(t testing.TB, substr string) {
	t.Helper()
	if !await(func() <-chan struct{} {
		l.mu.Lock()
		defer l.mu.Unlock()
		if bytes.Contains(l.b.Bytes(), []byte(substr)) {
			return nil
		}
		if l.more == nil {
			l.more = make(chan struct{})
		}
		return l.more
	}) {
		t.Fatalf("not within %s: %q in the log\n%s", Patience, substr, l)
	}
}
