package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// Lines of many writers are taken one at a time, in each writer's order, and
// none is forgotten, whoever takes them; the end comes last.
func TestPump(t *testing.T) {
	for _, waits := range []bool{false, true} {
		t.Run(fmt.Sprintf("waits %t", waits), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := newMemoryConns()
				near, far := startLink(t, a), newLink(b, wire.Limits{})
				const writers, each = 8, 500
				var next [writers]int
				var taking sync.Mutex
				var served sync.WaitGroup
				served.Go(func() {
					far.serve(waits, func(line []byte, err error) bool {
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
								err = near.write(context.Background(), add)
							} else {
								err = near.writeNow(nil, add)
							}
							if err != nil {
								t.Error(err)
							}
						}
					})
				}
				writing.Wait()
				if err := near.flush(t.Context()); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				for w, n := range next {
					if n != each {
						t.Errorf("%d lines of writer %d were taken, want %d", n, w, each)
					}
				}
				near.close()
				served.Wait()
			})
		})
	}
}

// A line that comes just when nothing more was found is not left behind.
func TestPumpLooksAgain(t *testing.T) {
	var p *pump
	reads := 0
	src := readFunc(func(b []byte) (int, error) {
		switch reads++; reads {
		case 1:
			p.wrote(true) // somebody wrote it behind our back
			return 0, wire.ErrNothingYet
		case 2:
			return copy(b, "late\n"), nil
		default:
			return 0, wire.ErrNothingYet
		}
	})
	var got []string
	p = &pump{link: &link{Reader: wire.NewReader(src, 100)}, take: func(line []byte, err error) bool {
		got = append(got, string(line))
		return err == nil
	}}
	p.wrote(true)
	if len(got) != 1 || got[0] != "late" {
		t.Errorf("took %q", got)
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(b []byte) (int, error) { return f(b) }
