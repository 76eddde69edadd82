package mesh

import "bytes"

const (
	// pieceLeast and pieceMost bound the pieces of memory in which messages wait, in
	// bytes, but for one of a longer message.
	pieceLeast = 512
	pieceMost  = 64 << 10
	// pieceKept is the largest piece kept while nothing waits.
	pieceKept = 4 << 10
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
	pieces  [][]byte // messages, each ended by LF
	head    int      // where the next message begins in the first piece
	in, out int      // how many messages were added and taken
	events  []eventAt
}

// An eventAt waits behind so many of all messages added.
type eventAt struct {
	at    int
	event PeerEvent
}

// addMessage adds a message, which has no LF in it, and returns its charge in bytes.
func (q *backlog) addMessage(raw []byte) (charge int) {
	need := len(raw) + 1
	last := len(q.pieces) - 1
	if last < 0 || cap(q.pieces[last])-len(q.pieces[last]) < need {
		size := pieceLeast
		switch {
		case need > pieceMost/8:
			size = need // a piece of its own: little of any piece is left empty
		case last >= 0:
			size = min(2*cap(q.pieces[last]), pieceMost)
		}
		if q.in == q.out {
			q.pieces, last = nil, -1 // one was kept
		}
		q.pieces = append(q.pieces, make([]byte, 0, max(size, need)))
		last++
	}
	q.pieces[last] = append(append(q.pieces[last], raw...), '\n')
	q.in++
	return need
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
	piece := q.pieces[0]
	line := piece[q.head : q.head+bytes.IndexByte(piece[q.head:], '\n')]
	q.out++
	if alone := len(line)+1 == len(piece); alone && cap(piece) > pieceKept && cap(piece) <= 2*len(piece) {
		raw = line[:len(line):len(line)] // free gives the piece up
	} else {
		raw = bytes.Clone(line)
	}
	q.head += len(line) + 1
	if q.head == len(piece) {
		q.free()
	}
	return raw, nil, len(raw) + 1, true
}

// free gives up the first piece, whose messages were taken.
func (q *backlog) free() {
	q.head = 0
	if len(q.pieces) == 1 && cap(q.pieces[0]) <= pieceKept {
		q.pieces[0] = q.pieces[0][:0]
		return
	}
	q.pieces[0] = nil
	q.pieces = q.pieces[1:]
	if len(q.pieces) == 0 {
		q.pieces = nil
	}
}
