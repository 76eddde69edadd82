// Package testutil holds what the tests of several packages share.
package testutil

import (
	"fmt"
	"os"
	"sync"
	"testing"
)

// fullVar is the environment variable that asks for the full suite.
const fullVar = "MESH_TEST_FULL"

// skipped holds what SkipUnlessFull has reported.
var skipped sync.Map

// Full reports whether MESH_TEST_FULL asks for the full suite. Without it, tests run that are quick and need no
// programs besides Go. With it, a test that misses a program fails instead of being skipped.
func Full() bool {
	v := os.Getenv(fullVar)
	return v != "" && v != "0"
}

// SkipUnlessFull skips the test unless the full suite is asked for. The first test that is skipped for what prints
// a line that says so; a package that uses one what for all its tests prints one line. go test hides what packages that
// pass have printed, unless it runs with -v or in the directory of a package that it is not told to test.
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
