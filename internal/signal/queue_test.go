package signal

import (
	"fmt"
	"sync"
	"testing"
)

func TestQueueKeepsOrderAndBound(t *testing.T) {
	q := NewQueue(10)
	for i, want := range []bool{true, true, false} {
		if got := q.Push([]byte(fmt.Sprintf("%d....", i))); got != want {
			t.Fatalf("Push %d = %v, want %v", i, got, want)
		}
	}
	for i := range 2 {
		if b, ok := q.Pop(); !ok || b[0] != byte('0'+i) {
			t.Fatalf("Pop = %q, %v, want item %d", b, ok, i)
		}
	}
	if b, ok := q.Pop(); ok {
		t.Fatalf("Pop of an empty queue = %q", b)
	}
	if !q.Push(make([]byte, 11)) {
		t.Fatal("an empty queue refused an item over the bound: it could never be sent")
	}
	if q.Push([]byte("x")) {
		t.Fatal("a queue over its bound took more")
	}
}

// TestQueueShares: a sender has its share, all of them the bound, and the owner its own bound.
func TestQueueShares(t *testing.T) {
	q := NewQueue(64)
	push := func(sender string, n int, want bool) {
		t.Helper()
		if got := q.PushFrom(sender, make([]byte, n)); got != want {
			t.Fatalf("%d bytes from %q: %v, want %v", n, sender, got, want)
		}
	}
	push("a", 3, true)
	push("a", 1, true)
	push("a", 1, false) // 4 is a sixteenth
	push("b", 50, true) // one message of any size
	push("b", 1, false)
	push("c", 11, false)
	push("c", 10, true)
	push("d", 1, false) // 64 in all
	if !q.Push(make([]byte, 64)) || q.Push([]byte("x")) {
		t.Fatal("the owner's bound is not 64, whatever senders push")
	}
	q.Pop()
	push("a", 3, true) // what is taken is no longer charged
	for _, ok := q.Pop(); ok; _, ok = q.Pop() {
	}
	if q.own != 0 || q.relayed != 0 || len(q.senders) != 0 {
		t.Fatalf("an empty queue is charged %d, %d, %v", q.own, q.relayed, q.senders)
	}
}

func TestQueueWakesItsConsumer(t *testing.T) {
	const n, producers = 200, 4
	q := NewQueue(1 << 20)
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
