//go:build !js

package rtc

import (
	"bytes"
	"sync"
	"unicode/utf8"

	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// keepIdle is the largest buffer that a lane keeps. Larger ones come from buffers, and go back there.
	keepIdle = 64 << 10
	// pieceSize is that of the buffers for many lines. What is queued is thus in pieces, which are freed as they are sent, instead of in
	// one that would be copied whenever it grows.
	pieceSize = 128 << 10
)

// buffers are for the lines of all lanes, by their size: pieceSize, twice as much and so on, up to 2 MiB.
var buffers [5]sync.Pool

// bufferFor returns an empty buffer for so many bytes, nil if they are too many.
func bufferFor(need int) []byte {
	for i := range buffers {
		if size := pieceSize << i; need <= size {
			if b, ok := buffers[i].Get().(*[]byte); ok {
				return *b
			}
			return make([]byte, 0, size)
		}
	}
	return nil
}

// release gives a buffer back, if it is from there; it returns one that the lane can keep instead.
func release(b []byte) []byte {
	for i := range buffers {
		if cap(b) == pieceSize<<i {
			b = b[:0]
			buffers[i].Put(&b)
			return nil
		}
	}
	if cap(b) > keepIdle {
		return nil
	}
	return b[:0]
}

// A lane is a queue of lines that are sent in order: byte buffers, one that lines are appended to, and those that are full.
// Thousands of queued messages are thus a few pieces of memory, which the writer cuts into slices of the best size.
type lane struct {
	full  [][]byte // before those in lines
	lines []byte

	added, sent uint64 // bytes in all; what is between them is here or with the writer
	congested   bool   // over the high mark, and since then not down to the low one
}

func (l *lane) queued() int { return int(l.added - l.sent) }
func (l *lane) empty() bool { return len(l.lines) == 0 && len(l.full) == 0 }

// reserve makes room for n bytes more in lines, which begins anew if it is nearly full.
func (l *lane) reserve(n int) {
	need := len(l.lines) + n
	if need <= cap(l.lines) || need <= keepIdle {
		return
	}
	if len(l.lines) >= max(cap(l.lines)*3/4, keepIdle) {
		l.full, l.lines = append(l.full, l.lines), nil
		need = n
	}
	if b := bufferFor(need); b != nil {
		b = append(b, l.lines...)
		release(l.lines)
		l.lines = b
	}
}

// commit takes over lines, to which some were appended.
func (l *lane) commit(lines []byte) {
	l.added += uint64(len(lines) - len(l.lines))
	l.lines = lines
}

// take exchanges the writer's used-up buffer for queued lines.
func (l *lane) take(used []byte) (lines []byte) {
	used = release(used)
	if len(l.full) == 0 {
		lines, l.lines = l.lines, used
		return lines
	}
	lines, l.full[0] = l.full[0], nil
	if l.full = l.full[1:]; l.lines == nil {
		l.lines = used
	}
	return lines
}

// shrink gives up large buffers of an empty lane; it returns the writer's.
func (l *lane) shrink(used []byte) []byte {
	l.full = nil
	l.lines = release(l.lines)
	return release(used)
}

// settle decides whether the lane is congested.
func (l *lane) settle(high, low int) {
	switch queued := l.queued(); {
	case queued > high:
		l.congested = true
	case queued <= low:
		l.congested = false
	}
}

// A piece is what the writer has taken from a lane.
type piece struct {
	lines []byte
	pos   int // lines[:pos] is sent
}

// rest returns what is left to send.
func (p *piece) rest() []byte { return p.lines[p.pos:] }

// within reports whether a line has been sent in part. Pieces end with lines.
func (p *piece) within() bool { return p.pos > 0 && p.pos < len(p.lines) && p.lines[p.pos-1] != '\n' }

// slice returns what of it goes into the next data channel message: as much as fits, but only up to the end of a line if
// another one is to go between two lines, and no part of a character in a text.
func (p *piece) slice(toLineEnd, text bool) []byte {
	b := p.rest()
	n := min(len(b), wire.SliceSize)
	if toLineEnd {
		if end := bytes.IndexByte(b[:n], '\n'); end >= 0 {
			return b[:end+1]
		}
	}
	for text && n < len(b) && !utf8.RuneStart(b[n]) {
		n--
	}
	return b[:n]
}

// message returns the next line, as a data channel message of base framing is one, with its newline.
func (p *piece) message() []byte { return p.rest()[:bytes.IndexByte(p.rest(), '\n')+1] }
