//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chatixia-ai/mesh"
)

// mostLeft is how much the heap may differ after agents have come and gone, in bytes.
const mostLeft = 4 << 20

func churn(r *run) {
	span := pick(r, 5*time.Minute, 10*time.Second)
	if r.churn > 0 {
		span = r.churn
	}
	s := r.serve()
	bob := r.start(s.url(), "bob")
	c := &crowd{run: r, url: s.url(), stays: bob, agents: pick(r, 32, 8), mostStay: pick(r, 40*time.Second, time.Second)}
	c.comeAndGo(0)
	r.pause(time.Second)
	before := usage()
	before.goroutines += idleWorkers
	runtime.GC()
	held := heap()
	memory := c.comeAndGo(span)
	after, ok := settles(before)
	r.check(ok, "before %v, after %v", before, after)
	var grown int
	ok = within(r.ctx, 30*time.Second, func() bool { // some of it is remembered for a while
		time.Sleep(100 * time.Millisecond)
		runtime.GC()
		grown = heap() - held
		return grown < mostLeft
	})
	r.check(ok, "the heap grew by %d kB", grown>>10)
	if r.memory != "" {
		r.stop("-memory", os.WriteFile(r.memory, []byte(memory.csv()), 0o644))
	}
	r.say("%d agents came and went in %s, %d at a time; then %v; heap %+d kB; resident memory %s",
		c.came.Load(), span, c.agents, after, grown>>10, memory)
}

// A crowd is agents that come, link to all others that are there, and go.
type crowd struct {
	*run
	url      string
	stays    *agent
	agents   int           // at a time
	mostStay time.Duration // of each, once it is linked
	came     atomic.Int64
}

// comeAndGo has agents do so for a time, each at least once, and returns what memory this process had.
func (c *crowd) comeAndGo(span time.Duration) memory {
	c.came.Store(0)
	over := time.Now().Add(span)
	var work sync.WaitGroup
	for i := range c.agents {
		random := rand.New(rand.NewPCG(c.seed, uint64(i)))
		work.Go(func() {
			for more := true; more && c.ctx.Err() == nil; more = time.Now().Before(over) {
				c.visit(i, time.Duration(random.Int64N(int64(c.mostStay))))
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		work.Wait()
		close(ended)
	}()
	m := watchMemory(ended)
	c.until("the agent that stays is alone", func() bool { return len(c.stays.Peers()) == 0 })
	return m
}

// visit is one agent's stay. Each has an id of its own: links of one id in a row would have to wait.
func (c *crowd) visit(i int, stay time.Duration) {
	mode := mesh.InProcess
	if i%4 == 0 {
		mode = mesh.SelfExec
	}
	id := fmt.Sprintf("visitor%d-%d", i, c.came.Add(1))
	a, err := newAgent(c.ctx, c.url, id, inMode(mode))
	if err != nil {
		c.check(false, "%s: %v", id, err)
		return
	}
	err = a.reach(c.ctx, c.stays.id)
	c.check(err == nil, "%s: %v", id, err)
	select {
	case <-time.After(stay):
	case <-c.ctx.Done():
	}
	err = a.Close()
	c.check(err == nil, "Close of %s: %v", id, err)
	<-a.Done()
}

// memory is what a process had, a sample each second.
type memory []sample

type sample struct {
	at         time.Duration
	rss, heap  int // bytes
	goroutines int
}

// watchMemory samples this process until ended is closed.
func watchMemory(ended <-chan struct{}) (all memory) {
	begin := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		rss, _ := resident(os.Getpid())
		all = append(all, sample{time.Since(begin), rss, heap(), runtime.NumGoroutine()})
		select {
		case <-tick.C:
		case <-ended:
			return all
		}
	}
}

// String says what the most was in the first and in the last tenth.
func (m memory) String() string {
	most := func(of memory) (most int) {
		for _, s := range of {
			most = max(most, s.rss)
		}
		return most >> 20
	}
	n := (len(m) + 9) / 10
	return fmt.Sprintf("%d MB at most in the first tenth, %d in the last", most(m[:n]), most(m[len(m)-n:]))
}

// csv is for bench -memory, which draws it.
func (m memory) csv() string {
	var b strings.Builder
	b.WriteString("seconds,rss_mb,heap_mb,goroutines\n")
	for _, s := range m {
		fmt.Fprintf(&b, "%.1f,%.1f,%.1f,%d\n", s.at.Seconds(), float64(s.rss)/1e6, float64(s.heap)/1e6, s.goroutines)
	}
	return b.String()
}
