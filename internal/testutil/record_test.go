package testutil_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

func TestRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r testutil.Record[int]
		go func() {
			for i := range 3 {
				<-time.After(time.Second)
				r.Add(i)
			}
		}()
		begin := time.Now()
		all := r.Wait(t, "two", func(all []int) bool { return len(all) >= 2 })
		if !slices.Equal(all, []int{0, 1}) || time.Since(begin) != 2*time.Second {
			t.Errorf("got %v after %s", all, time.Since(begin))
		}
		all[0] = 9 // the record keeps its own
		<-time.After(time.Hour)
		if all := r.All(); !slices.Equal(all, []int{0, 1, 2}) || r.Len() != 3 {
			t.Errorf("kept %v", all)
		}
		failed := record(func(t testing.TB) {
			r.Wait(t, "a fourth", func(all []int) bool { return len(all) == 4 })
		})
		if want := "not within 1m30s: a fourth; there are 3 so far"; failed.fatal != want {
			t.Errorf("got %q, want %q", failed.fatal, want)
		}
	})
}

func TestTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := make(chan int)
		go func() {
			<-time.After(time.Second)
			c <- 7
		}()
		if v := testutil.Take(t, "a number", c); v != 7 {
			t.Errorf("took %d", v)
		}
		r := record(func(t testing.TB) { testutil.Take(t, "another", c) })
		if want := "not within 1m30s: another"; r.fatal != want {
			t.Errorf("got %q, want %q", r.fatal, want)
		}
		close(c)
		if v := testutil.Take(t, "the end", c); v != 0 {
			t.Errorf("took %d from a closed channel", v)
		}
	})
}

func TestLogBufferWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b testutil.LogBuffer
		go func() {
			for _, text := range []string{"listen", "ing"} {
				<-time.After(time.Second)
				_, _ = b.Write([]byte(text))
			}
		}()
		b.Wait(t, "listening")
		r := record(func(t testing.TB) { b.Wait(t, "serving") })
		if want := "not within 1m30s: \"serving\" in the log\nlistening"; r.fatal != want {
			t.Errorf("got %q, want %q", r.fatal, want)
		}
	})
}
