package testutil

import (
	"os"
	"testing"
)

// ShortDir returns a new directory, for this user only, that is removed with all that is in it at the end of the test.
// It is for sockets, for which the path of t.TempDir can be too long.
func ShortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
