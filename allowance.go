package mesh

import (
	"math"
	"sync"
	"sync/atomic"

	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// inboxHigh is how many bytes of one peer's messages may wait for handlers, or be
	// handled, with the responses to them, until the peer is asked to pause; half of the
	// longest message if that is more, but never over inboxMost. At a quarter of it the
	// peer may resume. It is memory that is counted, not text.
	inboxHigh = 8 << 20
	inboxMost = math.MaxInt32 / stopFactor // sums fit an int of 32 bits
	// inboxesFactor is how many times that the inboxes of all peers may hold together. A
	// peer is asked to pause over its share, 1/inboxesShare of what is free, so that no
	// number of peers can fill it, and a quiet one always finds room; but not under
	// inboxLeast.
	inboxesFactor = 32
	inboxesShare  = 16
	inboxLeast    = 32 << 10
	// stopFactor is how many times what a peer may have in its inbox may arrive while
	// it is paused before nothing of it is read any more, responses included.
	stopFactor = 4
	// hardFactor is how many times what all inboxes may hold they do hold when messages
	// are dropped and reported; one inbox alone half of that. Only with a sidecar that
	// knows no pause does it come to that.
	hardFactor = 2
	// requestCost is what a request in work takes besides its bytes, most of it the
	// stack of its goroutine. Its peer is not charged for it, since Limits.MaxRequests
	// bounds it, but it counts in what all inboxes hold.
	requestCost = 8 << 10
)

// An allowance is what the inboxes of all peers hold together, in bytes, and which of
// them are held back for that alone.
type allowance struct {
	high     int    // what one may hold, and be free of a pause
	all      int64  // what they may hold together
	later    func() // calls settleInboxes in a goroutine of its own
	settling atomic.Bool
	pauses   atomic.Bool // the sidecar heeds a pause

	used   atomic.Int64
	enough atomic.Int64 // at or below which used is small enough for one that waits

	mu      sync.Mutex
	waiting map[*inbox]struct{}
}

// newAllowance makes the allowance for messages of up to maxMessage bytes.
func newAllowance(maxMessage int, later func()) *allowance {
	high := min(max(inboxHigh, maxMessage/2), inboxMost)
	a := &allowance{high: high, all: inboxesFactor * int64(high), later: later, waiting: map[*inbox]struct{}{}}
	a.enough.Store(math.MinInt64)
	return a
}

func (a *allowance) add(n int) {
	if used := a.used.Add(int64(n)); n < 0 && used <= a.enough.Load() {
		a.settle()
	}
}

// settle has the inboxes that wait look again. It may be called with the lock of one.
func (a *allowance) settle() {
	if a.settling.CompareAndSwap(false, true) {
		a.later()
	}
}

// share returns what one peer may have in its inbox for the sake of the others. It can
// be more than high.
func (a *allowance) share() int {
	return max(inboxLeast, int((a.all-a.used.Load())/inboxesShare))
}

// wait has b look again when its share may be so large.
func (a *allowance) wait(b *inbox, share int) {
	enough := a.all - int64(share)*inboxesShare
	a.mu.Lock()
	a.waiting[b] = struct{}{}
	a.enough.Store(max(enough, a.enough.Load()))
	a.mu.Unlock()
	if a.used.Load() <= enough { // only now
		a.settle()
	}
}

// leave has b look again for nothing that others do.
func (a *allowance) leave(b *inbox) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting, b)
}

// waiters returns the inboxes that wait. They wait no more.
func (a *allowance) waiters() []*inbox {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]*inbox, 0, len(a.waiting))
	for b := range a.waiting {
		all = append(all, b)
	}
	clear(a.waiting)
	a.enough.Store(math.MinInt64)
	return all
}

// full reports whether a peer that has so much in its inbox gets no further message in.
// What heeds a pause does not get that far.
func (a *allowance) full(has int) bool {
	hard := hardFactor * a.all
	return int64(has) > hard/2 || has > inboxLeast && a.used.Load() > hard && !a.pauses.Load()
}

// A holdback is why a peer is asked to pause.
type holdback struct {
	over    bool // its inbox alone is too full
	short   bool // it has more than its share
	ignores bool // more arrives although it is paused
}

// judge returns what follows from the bytes in an inbox, and from those that have arrived
// since the peer was asked to pause, where was is what followed before. need is the share
// with which that would change, 0 if no share would do that.
func (a *allowance) judge(bytes, since, share int, was holdback) (h holdback, need int) {
	most := stopFactor * min(a.high, share)
	h = holdback{
		over:    bytes > a.high || was.over && bytes > a.high/4,
		short:   bytes > share || was.short && bytes > share/8*5,
		ignores: bytes > most/2 && (since > most || was.ignores),
	}
	switch {
	case h.ignores && bytes <= stopFactor*a.high/2:
		need = bytes*2/stopFactor + 1
	case h.short:
		need = bytes/5*8 + 8
	}
	return h, need
}

// stop returns what the sidecar is told.
func (h holdback) stop() wire.Stop {
	switch {
	case h.ignores:
		return wire.StopAll
	case h.over || h.short:
		return wire.StopNewWork
	}
	return wire.StopNothing
}
