package sidecar

import "testing"

// As many messages as have room are told exactly, and more with an error of one entry's, never too few.
func TestLedger(t *testing.T) {
	for _, sent := range []int{0, 1, 7, maxEntries, maxEntries + 1, 100 * maxEntries} {
		for _, pending := range []int{0, 1, 300, 5000} { // what the peer has not acknowledged, in messages
			var l ledger
			sizes := make([]int, sent)
			for i := range sent {
				sizes[i] = 10 + i%17
				l.add(sizes[i], func() int { return last(sizes[:i], pending) })
			}
			want := min(pending, sent)
			slack := 0
			if pending >= maxEntries/2 {
				slack = 2 * pending / (maxEntries / 4)
			}
			if got := l.count(last(sizes, pending)); got < want || got > want+slack {
				t.Errorf("%d sent, %d not acknowledged: %d told, want up to %d more", sent, pending, got, slack)
			}
			if n := len(l.entries); n > maxEntries {
				t.Errorf("%d sent: %d entries", sent, n)
			}
			if got := l.count(last(sizes, sent) + 12); got > sent {
				t.Errorf("%d of %d messages told", got, sent)
			}
		}
	}
}

// last returns the bytes of the last n messages.
func last(sizes []int, n int) (bytes int) {
	for _, size := range sizes[max(len(sizes)-n, 0):] {
		bytes += size
	}
	return bytes
}

// What was acknowledged costs nothing later: messages are told exactly again.
func TestLedgerForgets(t *testing.T) {
	var l ledger
	for range 10 * maxEntries { // none is acknowledged
		l.add(10, func() int { return 1 << 30 })
	}
	for range 10 * maxEntries { // all are
		l.add(10, func() int { return 0 })
	}
	l.add(10, func() int { return 0 })
	l.add(10, func() int { return 10 })
	if got := l.count(20); got != 2 {
		t.Errorf("%d messages in 20 bytes, want 2", got)
	}
}
