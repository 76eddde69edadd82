package mesh

import (
	"bytes"
	"sync"
)

const (
	// pieceLeast and pieceMost bound the pieces of memory in which messages wait, in
	// bytes, but for those of long messages.
	pieceLeast = 512
	pieceMost  = 64 << 10
	// pieceKept is the largest piece kept while nothing waits.
	pieceKept = 4 << 10
	// longMessage is how long a message is, in bytes, that has a piece of its own: little of
	// any piece is left empty.
	longMessage = pieceMost / 8
	// eventCost is what an event that waits is charged, in bytes.
	eventCost = 256
	// maxEvents is how many events may wait before a peer that came is forgotten
	// when it goes.
	maxEvents = 16
)

// A backlog is what waits for one peer's handlers, in order: the messages as the
// bytes that arrived, one behind the other, and the peer's comings and goings
// between them. A message that waits thus costs its bytes. As a Message it would
// cost twenty times as much, if it is small.
type backlog struct {
	pieces  []piece
	head    int // where the next message begins in the first piece
	in, out int // how many messages were added and taken
	events  []eventAt
}

// A piece is one long message, or several, each ended by LF.
type piece struct {
	bytes []byte
	long  bool
}

// mostPieces are the pieces of pieceMost bytes that no backlog uses.
var mostPieces = sync.Pool{New: func() any { return new([pieceMost]byte) }}

// newPiece returns an empty piece for so many bytes of short messages.
func newPiece(size int) piece {
	if size == pieceMost {
		return piece{bytes: mostPieces.Get().(*[pieceMost]byte)[:0]}
	}
	return piece{bytes: make([]byte, 0, size)}
}

// fits reports whether so many bytes more go into the piece.
func (p *piece) fits(n int) bool { return !p.long && cap(p.bytes)-len(p.bytes) >= n }

func (p *piece) free() {
	if !p.long && cap(p.bytes) == pieceMost {
		mostPieces.Put((*[pieceMost]byte)(p.bytes[:pieceMost]))
	}
	*p = piece{}
}

// An eventAt waits behind so many of all messages added.
type eventAt struct {
	at    int
	event PeerEvent
}

// addMessage adds a message, which has no LF in it, and returns its charge in bytes.
func (q *backlog) addMessage(raw []byte) (charge int) {
	need := len(raw) + 1
	if q.in == q.out && len(q.pieces) > 0 && !q.pieces[0].fits(need) {
		q.pieces = nil // the one that was kept
	}
	if len(raw) >= longMessage {
		q.pieces = append(q.pieces, piece{bytes.Clone(raw), true})
	} else {
		p := q.pieceFor(need)
		p.bytes = append(append(p.bytes, raw...), '\n')
	}
	q.in++
	return need
}

// pieceFor returns the last piece, or a new one, with room for so many bytes.
func (q *backlog) pieceFor(need int) *piece {
	size := pieceLeast
	if last := len(q.pieces) - 1; last >= 0 && !q.pieces[last].long {
		p := &q.pieces[last]
		if p.fits(need) {
			return p
		}
		size = min(2*cap(p.bytes), pieceMost)
	}
	q.pieces = append(q.pieces, newPiece(max(size, need)))
	return &q.pieces[len(q.pieces)-1]
}

// addEvent adds an event and returns its charge in bytes. If many wait, a peer that
// came and goes again with nothing said is not mentioned: the charge is negative
// then.
func (q *backlog) addEvent(e PeerEvent) (charge int) {
	last := len(q.events) - 1
	if last+1 >= maxEvents && !e.Connected && q.events[last].event.Connected && q.events[last].at == q.in {
		q.events = q.events[:last]
		return -eventCost
	}
	q.events = append(q.events, eventAt{q.in, e})
	return eventCost
}

// next takes the next message, in memory of its own, or event, with its charge. ok is
// false if there is none.
func (q *backlog) next() (raw []byte, event *PeerEvent, charge int, ok bool) {
	if len(q.events) > 0 && q.events[0].at == q.out {
		e := q.events[0].event
		q.events = q.events[1:]
		if len(q.events) == 0 {
			q.events = nil
		}
		return nil, &e, eventCost, true
	}
	if q.in == q.out {
		return nil, nil, 0, false
	}
	p := &q.pieces[0]
	if raw = p.bytes; !p.long {
		rest := p.bytes[q.head:]
		raw = bytes.Clone(rest[:bytes.IndexByte(rest, '\n')])
	}
	q.out++
	if q.head += len(raw) + 1; q.head >= len(p.bytes) {
		q.free()
	}
	return raw, nil, len(raw) + 1, true
}

// free gives up the first piece, whose messages were taken.
func (q *backlog) free() {
	q.head = 0
	p := &q.pieces[0]
	if len(q.pieces) == 1 && !p.long && cap(p.bytes) <= pieceKept {
		p.bytes = p.bytes[:0]
		return
	}
	p.free()
	q.pieces = q.pieces[1:]
	if len(q.pieces) == 0 {
		q.pieces = nil
	}
}
