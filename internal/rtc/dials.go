package rtc

import (
	"slices"
	"time"
)

// maxDials bounds the links that are being dialled at a time. Were it all at once, the links of a large
// mesh that starts on one machine would take so long that ICE repeats its checks meanwhile, which takes even
// longer. A dial that has come to nothing after timing.dialPace counts no more: peers that do not answer must
// not hold up those that would.
const maxDials = 6

// dials paces the dialling. Only the node's loop uses it.
type dials struct {
	recent []*session  // those that count, and perhaps some that do no longer
	queue  []*slot     // who waits
	wakeUp *time.Timer // nil if nobody waits
}

// full tells whether another dial would be one too many.
func (d *dials) full(pace time.Duration) bool {
	d.recent = slices.DeleteFunc(d.recent, func(s *session) bool {
		return s.up || s.sl.cur != s || time.Since(s.began) >= pace
	})
	return len(d.recent) >= maxDials
}

// add has a slot wait for its turn. Those whose links were asked for come first.
func (d *dials) add(sl *slot) {
	if sl.queued && !sl.connecting {
		return
	}
	if sl.queued { // it may have waited with the others
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

// take returns whose turn it is.
func (d *dials) take() *slot {
	sl := d.queue[0]
	d.queue = slices.Delete(d.queue, 0, 1)
	sl.queued = false
	return sl
}

func (n *Node) dialLater(sl *slot) {
	n.dials.add(sl)
	n.dialTimer()
}

// dialQueued dials those whose turn it is. It is posted to the loop, rather than called, by whatever makes
// room.
func (n *Node) dialQueued() {
	for len(n.dials.queue) > 0 && n.mayDial() {
		sl := n.dials.take()
		if n.slots[sl.id] == sl {
			n.dial(sl)
			n.tidy(sl)
		}
	}
	n.dialTimer()
}

// madeRoom follows the end of a dial, good or bad.
func (n *Node) madeRoom() {
	if len(n.dials.queue) > 0 {
		n.box.post(n.dialQueued)
	}
}

// dialTimer sees to it that those who wait are looked at again, whatever happens to those before them.
func (n *Node) dialTimer() {
	if len(n.dials.queue) == 0 || n.dials.wakeUp != nil {
		return
	}
	n.dials.wakeUp = time.AfterFunc(n.cfg.timing.dialPace, func() {
		n.box.post(func() {
			n.dials.wakeUp = nil
			n.dialQueued()
		})
	})
}

func (n *Node) mayDial() bool {
	return !n.dials.full(n.cfg.timing.dialPace) && n.attempts() < maxAttempts
}
