//go:build !js

package rtc

import (
	"fmt"
	"time"

	"github.com/chatixia-ai/mesh/internal/pace"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// kind is what is known about a peer's software. It may change when the peer restarts.
type kind uint8

const (
	kindUnknown kind = iota // no offer or answer was seen
	kindBase
	kindExtended
)

// slot is what the node knows about one peer id. Only the node's loop uses it.
type slot struct {
	id     string
	cur    *session   // of the link, or of the attempt at one
	next   *session   // an attempt that may replace cur, a link to a proven peer, once its peer is proven as well
	parked []*session // superseded, with a base peer; they must not end before cur does

	wanted       bool        // try until there is a link
	queued       bool        // for dialling
	connecting   bool        // Connect was called and has no result yet
	connectTimer *time.Timer // the timeout of Connect

	kind       kind
	steady     bool      // no base peer, as signaling or the peer itself has said last: a path to it is checked less often
	failures   int       // attempts since the last link that lasted, or short links since then
	short      int       // links that ended at once, since one that lasted
	silence    int       // attempts since the peer was last heard from
	missed     missed    // why the last one came to nothing
	notBefore  time.Time // no offer before
	retryTimer *time.Timer
	hurryUntil time.Time // after a link was given up

	held    *description // base: an offer that came while ours was not answered
	holding *time.Timer

	offers  pace.Bucket // those that are taken up
	early   earlyCandidates
	refused time.Time    // until then Events is not told again that the peer was refused for the same reason
	refusal string       // that reason
	delayed *description // an offer that came too soon after others
	delay   *time.Timer

	sweep *time.Timer
}

// has reports whether a session is one of those that what happens to them counts.
func (sl *slot) has(s *session) bool { return sl.cur == s || sl.next == s }

// about returns the session that an offer, answer or candidate of the peer's session is about.
func (sl *slot) about(session string) *session {
	if sl.next != nil && sl.next.owns(session) {
		return sl.next
	}
	return sl.cur
}

// proven reports whether the peer of the link, or of the attempt at one, has proven its key. Such a link does not end
// because signaling says so.
func (sl *slot) proven() bool {
	return sl.cur != nil && sl.cur.peer != nil && !sl.cur.peer.Proof().Key.IsZero()
}

// heard notes a sign of life, and what it says about the peer's software.
func (sl *slot) heard(d description) {
	sl.silence = 0
	sl.kind, sl.steady = kindExtended, true
	if d.base() {
		sl.kind, sl.steady = kindBase, false
	}
}

// linked notes that the link is up.
func (sl *slot) linked() {
	sl.wanted, sl.connecting = false, false
	sl.failures, sl.silence, sl.missed, sl.hurryUntil = 0, 0, missed{}, time.Time{}
	stopTimer(sl.connectTimer)
	stopTimer(sl.retryTimer)
}

// hurries reports whether there was a link a short while ago that an outage has ended.
func (sl *slot) hurries() bool { return sl.wanted && time.Now().Before(sl.hurryUntil) }

// ended notes that the link has ended. One that did not last, as with a peer that refuses us as soon as we have said who
// we are, counts as a failure, so that it is not tried again and again.
func (sl *slot) ended(lasted bool) {
	sl.short++
	if lasted {
		sl.short = 0
	}
	sl.failures = sl.short
}

// idle reports whether there is nothing to remember about the peer.
func (sl *slot) idle(now time.Time) bool {
	return sl.cur == nil && len(sl.parked) == 0 && !sl.wanted && !sl.connecting && sl.held == nil && sl.delayed == nil &&
		len(sl.early) == 0 && !sl.notBefore.After(now) && !sl.offers.Whole().After(now) && !sl.refused.After(now)
}

// stop stops the timers.
func (sl *slot) stop() {
	for _, t := range []*time.Timer{sl.connectTimer, sl.retryTimer, sl.holding, sl.delay, sl.sweep} {
		if t != nil {
			t.Stop()
		}
	}
}

// slot returns the slot of a peer, a new one if need be, or what is wrong with the id.
func (n *Node) slot(id string) (*slot, *wire.Error) {
	switch {
	case id == "":
		return nil, &wire.Error{Code: wire.CodeInvalidField, Text: "the id is empty"}
	case len(id) > maxIDLength:
		return nil, &wire.Error{Code: wire.CodeInvalidField, Text: fmt.Sprintf(
			"the id has %d bytes, the limit is %d", len(id), maxIDLength)}
	case id == n.self:
		return nil, &wire.Error{Code: wire.CodeInvalidField, Text: "it is this agent itself"}
	case n.slots[id] != nil:
		return n.slots[id], nil
	case len(n.slots) >= maxSlots:
		return nil, &wire.Error{Code: wire.CodePeerUnavailable, Text: fmt.Sprintf(
			"%d other peers are linked or being linked, which is the limit", maxSlots)}
	}
	sl := &slot{id: id}
	n.slots[id] = sl
	return sl, nil
}

// tidy forgets a slot that has nothing to remember, or looks again when that may be so.
func (n *Node) tidy(sl *slot) {
	now := time.Now()
	if sl.idle(now) {
		sl.stop()
		delete(n.slots, sl.id)
		return
	}
	if sl.cur != nil || len(sl.parked) > 0 || sl.wanted || sl.connecting || sl.held != nil || sl.delayed != nil || sl.sweep != nil {
		return
	}
	// What is left are early candidates whose offer may never come, or a time before which something must not be.
	wait := max(n.cfg.ConnectTimeout, time.Until(sl.notBefore), time.Until(sl.offers.Whole()), time.Until(sl.refused))
	sl.sweep = n.after(sl, wait, func() {
		sl.sweep = nil
		if sl.cur == nil {
			sl.early = nil
		}
		n.tidy(sl)
	})
}

// after runs f in the loop unless the slot is gone by then.
func (n *Node) after(sl *slot, d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() {
		n.box.post(func() {
			if n.slots[sl.id] == sl {
				f()
			}
		})
	})
}
