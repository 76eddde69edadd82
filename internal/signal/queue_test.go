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
