package testutil_test

import (
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// A recorder is a test that notes how it ended.
type recorder struct {
	testing.TB
	fatal   string
	skipped bool
}

func (r *recorder) Helper() {}

func (r *recorder) Fatalf(format string, args ...any) {
	r.fatal = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (r *recorder) SkipNow() {
	r.skipped = true
	runtime.Goexit()
}

// record runs f as a test of its own.
func record(f func(testing.TB)) *recorder {
	r := new(recorder)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(r)
	}()
	<-done
	return r
}

func TestEventually(t *testing.T) {
	for _, x := range []struct {
		name  string
		after time.Duration // until the condition holds
		fatal string
	}{
		{"at once", 0, ""},
		{"later", testutil.Patience - time.Second, ""},
		{"never", time.Hour, "not within 1m30s: the sun rises"},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				r := record(func(t testing.TB) {
					testutil.Eventually(t, "the sun rises", func() bool { return time.Since(start) >= x.after })
				})
				if r.fatal != x.fatal {
					t.Errorf("got %q, want %q", r.fatal, x.fatal)
				}
			})
		})
	}
}

func TestSkipUnlessFull(t *testing.T) {
	what := "the night " + rand.Text() // a new one for each -count
	line := "skipped: " + what + "; run with MESH_TEST_FULL=1\n"
	for _, x := range []struct {
		value, printed string
		skips          bool
	}{
		{"1", "", false},
		{"", line, true},
		{"0", "", true}, // it is printed once
	} {
		t.Run("MESH_TEST_FULL="+x.value, func(t *testing.T) {
			t.Setenv("MESH_TEST_FULL", x.value)
			if got := testutil.Full(); got == x.skips {
				t.Errorf("Full() is %t", got)
			}
			var r *recorder
			printed := stdout(t, func() {
				r = record(func(t testing.TB) { testutil.SkipUnlessFull(t, what) })
			})
			if r.skipped != x.skips || printed != x.printed {
				t.Errorf("skipped %t, printed %q; want %t, %q", r.skipped, printed, x.skips, x.printed)
			}
		})
	}
}

// stdout returns what f prints, which must be little.
func stdout(t *testing.T, f func()) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	saved := os.Stdout
	os.Stdout = w
	f()
	os.Stdout = saved
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestLogBuffer(t *testing.T) {
	var b testutil.LogBuffer
	var writers sync.WaitGroup
	for range 10 {
		writers.Go(func() {
			for range 10 {
				if _, err := io.WriteString(&b, "line\n"); err != nil {
					t.Error(err)
				}
				_ = b.Count("line") // concurrent, for the race detector
			}
		})
	}
	writers.Wait()
	if got := b.String(); got != strings.Repeat("line\n", 100) || b.Count("line") != 100 {
		t.Errorf("%d of 100 lines in %q", b.Count("line"), got)
	}
}
