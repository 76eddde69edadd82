//go:build !js

package rtc

import (
	"slices"
	"time"

	"github.com/chatixia-ai/mesh/internal/backoff"
)

// maxDials bounds the links that are dialled at a time. If a large mesh that starts on one machine dialled
// all at once, the links would take so long that ICE repeats its checks meanwhile, which takes even longer. A
// dial without a result after timing.dialPace no longer counts: peers that do not answer must not hold up
// those that would.
const maxDials = 6

// dials paces the dialling. Only the node's loop uses it.
type dials struct {
	recent []*session  // the dials that count
	queue  []*slot     // those that have not had their turn
	wakeUp *time.Timer // set while the queue is not empty
}

// full reports whether another dial would exceed maxDials.
func (d *dials) full(pace time.Duration) bool {
	d.recent = slices.DeleteFunc(d.recent, func(s *session) bool { return time.Since(s.began) >= pace })
	return len(d.recent) >= maxDials
}

// add queues a slot. Those whose links were asked for come first.
func (d *dials) add(sl *slot) {
	if sl.queued && !sl.connecting {
		return
	}
	if sl.queued { // it may be among those not asked for
		d.queue = slices.DeleteFunc(d.queue, func(other *slot) bool { return other == sl })
	}
	sl.queued = true
	at := len(d.queue)
	if sl.connecting {
		if i := slices.IndexFunc(d.queue, func(other *slot) bool { return !other.connecting }); i >= 0 {
			at = i
		}
	}
	d.queue = slices.Insert(d.queue, at, sl)
}

// take removes and returns the slot whose turn it is.
func (d *dials) take() *slot {
	sl := d.queue[0]
	d.queue = slices.Delete(d.queue, 0, 1)
	sl.queued = false
	return sl
}

// dial makes an offer to a peer that is wanted, when it is its turn.
func (n *Node) dial(sl *slot) {
	if n.dialable(sl) {
		n.dials.add(sl)
		n.dialQueued()
	}
}

// dialable reports whether a peer is to be dialled now. If it is only too early, dialable schedules the dial.
func (n *Node) dialable(sl *slot) bool {
	if sl.cur != nil || !sl.wanted || !n.online || n.ending {
		return false
	}
	if wait := time.Until(sl.notBefore); wait > 0 {
		n.redial(sl, wait)
		return false
	}
	return true
}

// dialQueued dials as many as may be, and schedules another look at the others, whatever happens to the dials
// before them.
func (n *Node) dialQueued() {
	d := &n.dials
	for len(d.queue) > 0 && n.online && !d.full(n.cfg.timing.dialPace) && n.attempts() < maxAttempts {
		if sl := d.take(); n.slots[sl.id] == sl {
			if n.dialable(sl) {
				n.dialNow(sl)
			}
			n.tidy(sl)
		}
	}
	if len(d.queue) > 0 && d.wakeUp == nil {
		d.wakeUp = time.AfterFunc(n.cfg.timing.dialPace, func() {
			n.box.post(func() {
				d.wakeUp = nil
				n.dialQueued()
			})
		})
	}
}

func (n *Node) dialNow(sl *slot) {
	s, err := n.newSession(sl, true)
	if err != nil {
		n.failedHere(sl, err)
		n.retry(sl)
		return
	}
	s.retry = sl.missed != missed{}
	sl.cur = s
	n.dials.recent = append(n.dials.recent, s)
	if err := s.offer(); err != nil {
		n.lost(s, err)
	}
}

// dialled handles the end of a session's dial, whether it succeeded or not.
func (n *Node) dialled(s *session) {
	n.dials.recent = slices.DeleteFunc(n.dials.recent, func(other *session) bool { return other == s })
	if len(n.dials.queue) > 0 {
		n.box.post(n.dialQueued)
	}
}

func (n *Node) redial(sl *slot, d time.Duration) {
	stopTimer(sl.retryTimer)
	sl.retryTimer = n.after(sl, d, func() { n.dial(sl) })
}

// retry schedules another dial, later each time.
func (n *Node) retry(sl *slot) {
	if sl.silence >= maxSilence {
		n.outside.Info(sl.id).Str("peer", sl.id).Int("offers", sl.silence).Msg("peer does not respond; waiting for an offer of its own")
		sl.wanted = false
	}
	if sl.wanted {
		t := n.cfg.timing
		most := t.backoffMax
		if sl.hurries() {
			most = min(most, 2*t.repairMax)
		}
		n.redial(sl, backoff.Delay(t.backoffMin, most, sl.failures))
		sl.failures++
	}
	n.tidy(sl)
}

// attempts counts the links that are being made.
func (n *Node) attempts() (count int) {
	for _, sl := range n.slots {
		if sl.cur != nil && !sl.cur.up {
			count++
		}
		if sl.next != nil {
			count++
		}
	}
	return count
}
