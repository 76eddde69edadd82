package netpath

import (
	"container/heap"
	"math/rand/v2"
	"sync"
	"time"
)

// A line is one direction of a path: a queue that drops what does not fit, a line of some rate, and a delay.
type line struct {
	mu         sync.Mutex
	conditions Conditions
	random     *rand.Rand
	busy       time.Time // until when the line sends what it has taken
	waiting    packets
	changed    chan struct{} // has room for one
	closed     bool

	taken, lost, dropped, doubled int
}

func newLine(c Conditions, random *rand.Rand) *line {
	return &line{conditions: c, random: random, changed: make(chan struct{}, 1)}
}

func (l *line) set(c Conditions) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conditions = c
}

// take puts a packet on the line, which is to be delivered in this way, or drops it.
func (l *line) take(b []byte, deliver func([]byte)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, now := &l.conditions, time.Now()
	l.taken++
	if l.random.Float64() < c.Loss {
		l.lost++
		return
	}
	if l.busy.Before(now) {
		l.busy = now
	}
	size := len(b) + overhead
	if c.Rate > 0 {
		queue := c.Queue
		if queue == 0 {
			queue = defaultQueue
		}
		if queued := l.busy.Sub(now).Seconds() * c.Rate / 8; int(queued)+size > queue {
			l.dropped++
			return
		}
		l.busy = l.busy.Add(time.Duration(float64(size) * 8 / c.Rate * float64(time.Second)))
	}
	at := l.busy.Add(c.Delay)
	if l.random.Float64() < c.Reorder {
		at = at.Add(c.Delay)
	}
	due := packet{at, l.taken, append([]byte(nil), b...), deliver}
	heap.Push(&l.waiting, due)
	if c.Duplicate > 0 && l.random.Float64() < c.Duplicate {
		l.doubled++
		due.at = at.Add(c.Delay)
		heap.Push(&l.waiting, due)
	}
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// run delivers packets when they are due, until close.
func (l *line) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due, wait, open := l.next()
		if !open {
			return
		}
		if due.b != nil {
			due.deliver(due.b)
			continue
		}
		timer.Reset(wait)
		select {
		case <-l.changed:
		case <-timer.C:
		}
	}
}

// next takes the next packet that is due, or returns how long to wait for it. open is false once the line is closed.
func (l *line) next() (due packet, wait time.Duration, open bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		return due, time.Hour, !l.closed // changed ends the wait
	}
	if wait = time.Until(l.waiting[0].at); wait > 0 {
		return due, wait, !l.closed
	}
	return heap.Pop(&l.waiting).(packet), 0, !l.closed
}

func (l *line) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

type packet struct {
	at      time.Time
	number  int
	b       []byte
	deliver func([]byte)
}

// packets is a heap: those due first come first.
type packets []packet

func (p packets) Len() int { return len(p) }
func (p packets) Less(i, j int) bool {
	return p[i].at.Before(p[j].at) || p[i].at.Equal(p[j].at) && p[i].number < p[j].number
}
func (p packets) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *packets) Push(x any)   { *p = append(*p, x.(packet)) }
func (p *packets) Pop() any {
	last := len(*p) - 1
	x := (*p)[last]
	(*p)[last] = packet{}
	*p = (*p)[:last]
	return x
}
