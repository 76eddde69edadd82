package mesh

import (
	"math"
	"sync"
	"sync/atomic"

	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// Over inboxHigh bytes of one peer's messages that wait for handlers, or are
	// being handled, and of the responses to them, the peer is asked to pause; at
	// inboxLow it may resume. It is memory that is counted, not text.
	inboxHigh = 8 << 20
	inboxLow  = 2 << 20
	// inboxesHigh is what the inboxes of all peers may hold together. A peer is asked
	// to pause over its share, 1/inboxesShare of what is free, so that no number of
	// peers can fill it, and a quiet one always finds room; but not under inboxLeast.
	inboxesHigh  = 256 << 20
	inboxesShare = 16
	inboxLeast   = 32 << 10
	// stopFactor is how many times what a peer may have in its inbox may arrive while
	// it is paused before nothing of it is read any more, responses included.
	stopFactor = 4
	// inboxHard is where messages of one peer are dropped and reported, and inboxesHard
	// that for all peers together. Only a sidecar that knows no pause gets here.
	inboxHard   = 256 << 20
	inboxesHard = 512 << 20
	// requestCost is what a request in work takes besides its bytes, most of it the
	// stack of its goroutine. Its peer is not charged for it, since Limits.MaxRequests
	// bounds it, but it counts in what all inboxes hold.
	requestCost = 8 << 10
)

// An allowance is what the inboxes of all peers hold together, in bytes, and which of
// them are held back for that alone.
type allowance struct {
	later    func() // calls settleInboxes in a goroutine of its own
	settling atomic.Bool
	pauses   atomic.Bool // the sidecar heeds a pause

	used   atomic.Int64
	enough atomic.Int64 // at or below which used is small enough for one that waits

	mu      sync.Mutex
	waiting map[*inbox]struct{}
}

func newAllowance(later func()) *allowance {
	a := &allowance{later: later, waiting: map[*inbox]struct{}{}}
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
// be more than inboxHigh.
func (a *allowance) share() int {
	return max(inboxLeast, int(inboxesHigh-a.used.Load())/inboxesShare)
}

// wait has b look again when its share may be so large.
func (a *allowance) wait(b *inbox, share int) {
	enough := int64(inboxesHigh) - int64(share)*inboxesShare
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
	return has > inboxHard || has > inboxLeast && a.used.Load() > inboxesHard && !a.pauses.Load()
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
func judge(bytes, since, share int, was holdback) (h holdback, need int) {
	most := stopFactor * min(inboxHigh, share)
	h = holdback{
		over:    bytes > inboxHigh || was.over && bytes > inboxLow,
		short:   bytes > share || was.short && bytes > share/8*5,
		ignores: bytes > most/2 && (since > most || was.ignores),
	}
	switch {
	case h.ignores && bytes <= stopFactor*inboxHigh/2:
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
