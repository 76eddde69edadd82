package sidecar

import "sync"

// maxEntries bounds the memory of a ledger, 8 KiB.
const maxEntries = 512

// A ledger has the lengths of the latest messages to one peer, to tell how many of them make up the bytes that the peer
// has not acknowledged. Where these are more messages than entries, an entry stands for several, and the number that is
// told is too high by at most one entry's.
type ledger struct {
	mu      sync.Mutex
	entries []entry // in the order sent
	grain   int     // messages of one entry
}

type entry struct{ messages, bytes int }

// add notes a message that was sent. unacknowledged returns how many bytes of those before it the peer has not
// acknowledged, at least; it is called when the ledger is full, or was.
func (l *ledger) add(bytes int, unacknowledged func() int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := len(l.entries) - 1; last >= 0 && l.entries[last].messages < l.grain {
		l.entries[last].messages++
		l.entries[last].bytes += bytes
		return
	}
	if len(l.entries) == maxEntries || l.grain > 1 && unacknowledged() == 0 {
		l.makeRoomLocked(unacknowledged())
	}
	l.entries = append(l.entries, entry{1, bytes})
}

// makeRoomLocked forgets what is acknowledged, and makes pairs of entries if that is less than half.
func (l *ledger) makeRoomLocked(unacknowledged int) {
	_, first := l.countLocked(unacknowledged)
	l.entries = l.entries[:copy(l.entries, l.entries[first:])]
	switch n := len(l.entries); {
	case n == 0:
		l.grain = 1
	case n > maxEntries/2:
		l.grain = max(l.grain, 1) * 2
		for i := range (n + 1) / 2 {
			e := l.entries[2*i]
			if 2*i+1 < n {
				e.messages += l.entries[2*i+1].messages
				e.bytes += l.entries[2*i+1].bytes
			}
			l.entries[i] = e
		}
		l.entries = l.entries[:(n+1)/2]
	}
}

// count returns how many messages are in so many bytes that were sent last.
func (l *ledger) count(bytes int) (messages int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	messages, _ = l.countLocked(bytes)
	return messages
}

// countLocked also returns the first entry that counts.
func (l *ledger) countLocked(bytes int) (messages, first int) {
	first = len(l.entries)
	for ; bytes > 0 && first > 0; first-- {
		e := l.entries[first-1]
		messages += e.messages
		bytes -= e.bytes
	}
	return messages, first
}
