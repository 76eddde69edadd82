package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Lines of many writers are taken one at a time, in each writer's order, and all of
// them, whichever goroutine takes them; the end comes last.
func TestPump(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := Pipe()
		started(t, near)
		const writers, each = 8, 500
		var next [writers]int
		var taking sync.Mutex
		var served sync.WaitGroup
		served.Go(func() {
			far.Serve(func(line []byte, err error) bool {
				if !taking.TryLock() {
					t.Error("two lines are taken at a time")
					return false
				}
				defer taking.Unlock()
				if err != nil {
					if !errors.Is(err, io.EOF) {
						t.Error(err)
					}
					return false
				}
				var w, i int
				if _, err := fmt.Sscan(string(line), &w, &i); err != nil || next[w] != i {
					t.Errorf("line %q of writer %d, want its %d", line, w, next[w])
				}
				next[w]++
				return true
			})
		})
		var writing sync.WaitGroup
		for w := range writers {
			writing.Go(func() {
				for i := range each {
					add := line(fmt.Sprint(w, " ", i))
					var err error
					if i%2 == 0 {
						err = near.Write(context.Background(), add)
					} else {
						err = near.WriteNow(nil, add)
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		writing.Wait()
		if err := near.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		for w, n := range next {
			if n != each {
				t.Errorf("%d lines of writer %d were taken, want %d", n, w, each)
			}
		}
		near.Close()
		served.Wait()
	})
}

// A line that comes just when nothing more was found is not left behind: two
// write at the same moment, again and again, and nothing until both are taken.
func TestPumpLooksAgain(t *testing.T) {
	const writers, rounds = 2, 50_000
	var took atomic.Int64
	near := servePump(t, func(string) { took.Add(1) })
	deadline := time.Now().Add(time.Minute)
	var writing sync.WaitGroup
	for range writers {
		writing.Go(func() {
			for round := range rounds {
				if round%2 == 0 {
					near.carrier.(*memory).pace.Heard() // the writers take it themselves
				}
				if err := near.WriteNow(nil, line("x")); err != nil {
					t.Error(err)
				}
				for took.Load() < writers*int64(round+1) { // spinning keeps the two together
					if runtime.Gosched(); time.Now().After(deadline) {
						t.Errorf("%d lines were taken by round %d", took.Load(), round)
						return
					}
				}
			}
		})
	}
	writing.Wait()
}

// servePump takes the lines of an in-memory link until the test ends.
func servePump(t *testing.T, take func(line string)) (near *Link) {
	t.Helper()
	near, far := Pipe()
	started(t, near)
	served := make(chan struct{})
	go func() {
		defer close(served)
		far.Serve(func(line []byte, err error) bool {
			if err == nil {
				take(string(line))
			}
			return err == nil
		})
	}()
	t.Cleanup(func() {
		near.Close()
		<-served
	})
	return near
}

// The goroutine that writes a line takes it, and the lines behind it unless it was long.
func TestPumpWho(t *testing.T) {
	for name, tc := range map[string]struct {
		line string
		ours bool // also the line after it is taken by the writer
	}{
		"short": {"a", true},
		"long":  {strings.Repeat("x", pumpShare<<10), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var byWriter []bool
				l := servePump(t, func(string) {
					byWriter = append(byWriter, bytes.Contains(debug.Stack(), []byte(".WriteNow(")))
				})
				synctest.Wait()
				if err := l.WriteNow(nil, line(tc.line+"\nb")); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if len(byWriter) != 2 || byWriter[1] != tc.ours {
					t.Errorf("taken by the writer: %v", byWriter)
				}
			})
		})
	}
}

// A line that follows another one closely is left to the goroutine in Serve, unless one has come from the other end since, and charged until
// then.
func TestPumpFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var byWriter []bool
		near, far := Pipe()
		for _, l := range []*Link{near, far} {
			started(t, l)
			go l.Serve(func(_ []byte, err error) bool {
				if err == nil && l == far {
					byWriter = append(byWriter, bytes.Contains(debug.Stack(), []byte(".WriteNow(")))
				}
				return err == nil
			})
		}
		defer near.Close()
		var account tally
		write := func(l *Link) {
			synctest.Wait()
			if err := l.WriteNow(&account, line("x")); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		write(near)
		write(near) // at the same time
		write(far)
		write(near)
		write(near)
		time.Sleep(time.Millisecond)
		write(near)
		if want := []bool{true, false, true, false, true}; !slices.Equal(byWriter, want) {
			t.Errorf("taken by the writer: %v, want %v", byWriter, want)
		}
		const left = 2 * (2 + chargeCost)
		if account.charged.Load() != left || account.released.Load() != left {
			t.Errorf("charged %d, released %d, want %d", account.charged.Load(), account.released.Load(), left)
		}
	})
}

// What a line has left to do is done, and nothing more is left to a goroutine that is not there for it, when the taking of another one panics.
func TestPumpPanicInline(t *testing.T) {
	for _, lines := range []string{"work\nbad", "bad\nwork", "work"} {
		synctest.Test(t, func(t *testing.T) {
			near, far := Pipe()
			started(t, near)
			did, refused := 0, 0
			go far.Serve(func(l []byte, err error) bool {
				switch string(l) {
				case "work":
					if !far.Leave(func() { did++ }) {
						refused++
					}
					if lines == "work" {
						if err := near.WriteNow(nil, line("bad")); err != nil {
							t.Error(err)
						}
					}
				case "bad":
					panic("bad")
				}
				return err == nil
			})
			synctest.Wait()
			func() {
				defer func() { _ = recover() }()
				_, _ = near.WriteNowInline(nil, line(lines)) // it panics
			}()
			synctest.Wait()
			if did+refused != 1 {
				t.Errorf("%q: work was done %d times and refused %d times", lines, did, refused)
			}
			near.Close()
		})
	}
}

// A panic that the writer recovers does not stop the link.
func TestPumpPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var took []string
		l := servePump(t, func(line string) {
			took = append(took, line)
			if line == "bad" {
				panic(line)
			}
		})
		synctest.Wait()
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			_ = l.WriteNow(nil, line("bad")) // it panics
		}()
		if err := l.WriteNow(nil, line("good")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(took) != 2 || took[1] != "good" {
			t.Errorf("took %q", took)
		}
	})
}
