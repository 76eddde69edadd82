//go:build !js

package rtc

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// longestLines is how many lines of the largest size there is memory for, of all peers together.
	longestLines = 16
	// lineShare is the part of that memory, 1/lineShare of what the others leave, that one line gets without waiting: so
	// that no number of peers can fill it, and eight of the longest lines come in at a time.
	lineShare = 8
)

// lineMemory bounds what the lines of all peers together hold that have begun to come in: the buffers of their readers,
// as far as they are larger than wire.ReaderKeep. A reader whose line is to have more than its share waits, and reads
// nothing, until there is room. So that they do not all wait for each other, one of them, which has the turn, gets what
// it needs in any case: the bound is exceeded by the two lines of one peer at most. While somebody needs the turn, a line that has been
// read for patience since it last needed memory ends its link.
type lineMemory struct {
	max      int // bytes
	patience time.Duration

	mu     sync.Mutex
	change sync.Cond // some was given back
	used   int       // bytes
	lines  map[*longLine]struct{}
	turn   *longLine
	watch  *time.Timer // nil while nobody has needed the turn
	closed bool
}

func newLineMemory(cfg *Config) *lineMemory {
	m := &lineMemory{
		max:      longestLines * min(cfg.Limits.MaxLine(), math.MaxInt/longestLines),
		patience: cfg.timing.longLine, lines: make(map[*longLine]struct{}),
	}
	m.change.L = &m.mu
	return m
}

// close ends the watch: the links are about to end.
func (m *lineMemory) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed = true; m.watch != nil {
		m.watch.Stop()
	}
}

// A longLine is the part of one stream of one peer's reader. Its methods may be called concurrently.
type longLine struct {
	other  *longLine   // that of the peer's other stream
	memory *lineMemory // nil: there is no bound
	end    func(error) // ends the link
	// The rest is guarded by memory.mu.
	held  int       // bytes
	since time.Time // when it got the last of them
	waits bool
	gone  bool // the link has ended: it waits no more
}

// resize is the account of a wire.Reader, whose buffer is to have size bytes.
func (l *longLine) resize(size int) error {
	m := l.memory
	if m == nil {
		return nil
	}
	held := max(0, size-wire.ReaderKeep)
	m.mu.Lock()
	defer m.mu.Unlock()
	waited := false
	for l.waits = true; held > l.held && !m.fits(l, held); m.change.Wait() {
		if l.gone {
			return errors.New("it ended while its line waited for memory")
		}
		waited = true
	}
	if waited { // meanwhile nothing was read of the other stream, either
		l.other.since = time.Now()
	}
	m.used += held - l.held
	l.waits, l.held, l.since = false, held, time.Now()
	if held > 0 {
		m.lines[l] = struct{}{}
		return nil
	}
	delete(m.lines, l)
	if m.turn == l {
		m.turn = nil
	}
	m.change.Broadcast()
	return nil
}

// fits reports whether l may hold so much, by its share or by the turn, which it may get here. With one stream of a peer the
// other one has the turn, too: it is the same reader that would wait.
func (m *lineMemory) fits(l *longLine, held int) bool {
	if held <= (m.max-m.used+l.held)/lineShare || m.turn == l || m.turn != nil && m.turn == l.other {
		return true
	}
	if m.turn != nil {
		return false
	}
	m.turn = l
	if m.watch == nil && !m.closed {
		m.watch = time.AfterFunc(m.patience, m.look)
	}
	return true
}

// look ends the links whose lines take too long while others wait.
func (m *lineMemory) look() {
	m.mu.Lock()
	var late []*longLine
	for l := range m.lines {
		waits := l.waits || l.other.waits // the reader, which is that of both
		if m.turn != nil && !waits && time.Since(l.since) >= m.patience {
			late = append(late, l)
		}
	}
	if m.turn == nil || m.closed {
		m.watch = nil
	} else {
		m.watch.Reset(m.patience / 4)
	}
	m.mu.Unlock()
	for _, l := range late {
		const text = "it does not end a line of over %d bytes, and others need the memory"
		l.end(fmt.Errorf("%w: "+text, ErrViolation, wire.ReaderKeep))
	}
}

// abandon has a reader that waits for memory end.
func (l *longLine) abandon() {
	m := l.memory
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	l.gone = true
	m.change.Broadcast()
}
