package mesh

import "sync/atomic"

const (
	// Over inboxHigh bytes of one peer's messages that wait for handlers, or are
	// being handled, and of the responses to them, the peer is asked to pause; at a
	// quarter it may resume. It is memory that is counted, not text.
	inboxHigh = 8 << 20
	// inboxHard is where messages are dropped and reported. The sidecar stops
	// reading long before; only one that knows no pause gets here.
	inboxHard = 256 << 20
	// inboxesHigh is what the inboxes of all peers may hold together. A peer is asked
	// to pause over inboxesShare of what the others have left of it, so that no number
	// of peers can fill it, and a quiet one always finds room; but not under inboxLeast.
	inboxesHigh  = 256 << 20
	inboxesShare = 16
	inboxLeast   = 64 << 10
	// inboxesHard is inboxHard for all inboxes.
	inboxesHard = 512 << 20
	// requestCost is what a request in work takes besides its bytes, most of it the
	// stack of its goroutine. Its peer is not charged for it, since Limits.MaxRequests
	// bounds it, but it counts in what all inboxes hold.
	requestCost = 8 << 10
)

// An allowance is what the inboxes of all peers hold together, in bytes.
type allowance struct{ used atomic.Int64 }

func (a *allowance) add(n int) { a.used.Add(int64(n)) }

// high returns what one peer may have in its inbox before it is asked to pause.
func (a *allowance) high() int {
	return min(inboxHigh, max(inboxLeast, int(inboxesHigh-a.used.Load())/inboxesShare))
}

// full reports whether a peer that has so much in its inbox gets no further message in.
func (a *allowance) full(has int) bool {
	return has > inboxHard || has > inboxLeast && a.used.Load() > inboxesHard
}
