// Package testutil holds what the tests of several packages share.
package testutil

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// fullVar is the environment variable that asks for the full suite.
	fullVar = "MESH_TEST_FULL"
	// patience bounds each wait of Eventually. It is generous because the machine may be busy.
	patience = time.Minute
	// pollInterval is the time between two looks at a condition.
	pollInterval = 2 * time.Millisecond
)

// skipped holds what SkipUnlessFull has reported.
var skipped sync.Map

// Full reports whether MESH_TEST_FULL asks for the full suite. Without it, tests run that are quick and need no
// programs besides Go. With it, a test that misses a program fails instead of being skipped.
func Full() bool {
	v := os.Getenv(fullVar)
	return v != "" && v != "0"
}

// SkipUnlessFull skips the test unless the full suite is asked for. The first test that is skipped for what prints
// a line that says so; a package that uses one what for all its tests prints one line.
func SkipUnlessFull(t testing.TB, what string) {
	t.Helper()
	if Full() {
		return
	}
	if _, again := skipped.LoadOrStore(what, true); !again {
		fmt.Printf("skipped: %s; run with %s=1\n", what, fullVar)
	}
	t.SkipNow()
}

// Eventually blocks until ok returns true, and fails the test if that takes longer than a minute. It is for
// conditions that no event announces. It must run on the goroutine of the test.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			if !ok() { // a machine that stood still may have left no time for another look
				t.Fatalf("not within %s: %s", patience, what)
			}
			return
		}
	}
}

// LogBuffer keeps what is written to it. Its methods may be called concurrently; the zero value is empty.
type LogBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write appends p. It never fails.
func (l *LogBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
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
