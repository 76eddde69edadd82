package signal

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
)

func TestQueueKeepsOrderAndBound(t *testing.T) {
	q := NewQueue(10_000, nil)
	n := 0
	for q.Push([]byte(fmt.Sprintf("%d", n))) {
		n++
	}
	if n < 10 || n > 100 {
		t.Fatalf("a queue of 10,000 bytes took %d messages of two bytes: each costs hundreds", n)
	}
	for i := range n {
		if b, ok := q.Pop(); !ok || string(b) != fmt.Sprint(i) {
			t.Fatalf("Pop = %q, %v, want item %d", b, ok, i)
		}
	}
	if b, ok := q.Pop(); ok {
		t.Fatalf("Pop of an empty queue = %q", b)
	}
	if !q.Push(make([]byte, 10_001)) {
		t.Fatal("an empty queue refused an item over the bound: it could never be sent")
	}
	if q.Push([]byte("x")) {
		t.Fatal("a queue over its bound took more")
	}
}

// TestQueueShares: a sender has its share, all of them the bound, and the owner its own bound.
func TestQueueShares(t *testing.T) {
	const max = 1 << 20
	q := NewQueue(max, nil)
	push := func(sender string, n int, want bool) {
		t.Helper()
		if got := q.PushFrom(sender, make([]byte, n)); got != want {
			t.Fatalf("%d bytes from %q: %v, want %v", n, sender, got, want)
		}
	}
	push("a", max/32, true)
	push("a", max/32, false) // more than a sixteenth, with what it costs besides
	push("b", max/2, true)   // one message of any size
	push("b", 1, false)
	push("c", max/2, false)
	push("c", 1, true) // what was refused is not charged
	if !q.Push(make([]byte, max)) || q.Push([]byte("x")) {
		t.Fatal("the owner's bound depends on what senders push")
	}
	q.Pop()
	push("a", max/32, false) // still being written
	q.Pop()
	push("a", max/32, true) // what is written is not charged any more
	for _, ok := q.Pop(); ok; _, ok = q.Pop() {
	}
	if q.own != 0 || q.relayed != 0 || len(q.senders) != 0 {
		t.Fatalf("an empty queue is charged %d, %d, %v", q.own, q.relayed, q.senders)
	}
}

// TestQueueMemory measures what full queues hold: no more than their bound, whatever the messages are.
func TestQueueMemory(t *testing.T) {
	const max = 4 << 20
	for _, c := range []struct {
		name string
		fill func(q *Queue, i int) bool
	}{
		{"tiny", func(q *Queue, _ int) bool { return q.Push([]byte{1}) }},
		{"as io.ReadAll returns them", func(q *Queue, _ int) bool { return q.Push(append(make([]byte, 0, 512), 1)) }},
		{"over a size class", func(q *Queue, _ int) bool { return q.Push(make([]byte, 32<<10+1)) }},
		{"of a new sender each", func(q *Queue, i int) bool { return q.PushFrom(fmt.Sprintf("%0128d", i), []byte{1}) }},
		{"of one sender", func(q *Queue, _ int) bool { return q.PushFrom("a", []byte{1}) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := heap()
			q := NewQueue(max, nil)
			n := 0
			for c.fill(q, n) {
				n++
			}
			if held := heap() - before; held > max || n == 0 {
				t.Errorf("%d messages hold %d bytes, at most %d are allowed", n, held, max)
			}
			runtime.KeepAlive(q)
		})
	}
}

// heap returns the bytes of all live objects.
func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestPool: many queues stay within the pool together, each of them still has room, and Close gives it back.
func TestPool(t *testing.T) {
	const max = 8 << 20
	pool := NewPool(max)
	before := heap()
	var queues []*Queue
	for range 100 {
		q := NewQueue(max, pool)
		n := 0
		for q.PushFrom(fmt.Sprint(n), make([]byte, 100)) {
			n++
		}
		if n == 0 {
			t.Fatalf("queue %d has no room", len(queues))
		}
		queues = append(queues, q)
	}
	if held := heap() - before; held > max {
		t.Errorf("they hold %d bytes, at most %d are allowed", held, max)
	}
	for _, q := range queues {
		q.Pop()
		q.Close()
		if q.Push([]byte("x")) {
			t.Fatal("a closed queue took a message")
		}
	}
	if used := pool.used.Load(); used != 0 {
		t.Errorf("%d bytes are charged for closed queues", used)
	}
}

func TestQueueWakesItsConsumer(t *testing.T) {
	const n, producers = 200, 4
	q := NewQueue(1<<20, nil)
	var wg sync.WaitGroup
	for range producers {
		wg.Go(func() {
			for range n {
				q.Push([]byte("x"))
			}
		})
	}
	for got := 0; got < n*producers; {
		<-q.Ready()
		for _, ok := q.Pop(); ok; _, ok = q.Pop() {
			got++
		}
	}
	wg.Wait()
}
