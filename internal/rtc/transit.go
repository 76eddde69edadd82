//go:build !js

package rtc

import "sync/atomic"

// A transit is what is on its way to a peer over all channels of its link.
type transit struct {
	handed atomic.Uint64 // bytes that were handed over to the channels
	first  dataChannel
	second atomic.Pointer[dataChannel] // nil while there is none

	lowAt [2]uint64 // the marks of the channels; owned by the writer
}

// add adds the second channel.
func (t *transit) add(dc dataChannel) { t.second.Store(&dc) }

// waiting returns how many bytes the peer has yet to acknowledge.
func (t *transit) waiting() uint64 {
	n := t.first.BufferedAmount()
	if dc := t.second.Load(); dc != nil {
		n += (*dc).BufferedAmount()
	}
	return n
}

// count returns how many bytes the peer has yet to acknowledge, and how many it has.
func (t *transit) count() (waiting, acknowledged uint64) {
	handed := t.handed.Load()
	waiting = t.waiting()
	return waiting, handed - min(handed, waiting)
}

// lowMark has the writer woken when no more than so many bytes are on their way, or before: with two channels, each of them wakes
// it once its half of what is too much has gone.
func (t *transit) lowMark(bytes uint64) {
	second := t.second.Load()
	if second == nil {
		t.mark(0, t.first, bytes)
		return
	}
	one, two := t.first.BufferedAmount(), (*second).BufferedAmount()
	excess := one + two - min(bytes, one+two)
	t.mark(0, t.first, one-min((excess+1)/2, one))
	t.mark(1, *second, two-min((excess+1)/2, two))
}

func (t *transit) mark(i int, dc dataChannel, bytes uint64) {
	if bytes != t.lowAt[i] {
		t.lowAt[i] = bytes
		dc.SetBufferedAmountLowThreshold(bytes)
	}
}
