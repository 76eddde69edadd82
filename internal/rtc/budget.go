//go:build !js

package rtc

import (
	"slices"
	"sync/atomic"
	"time"
)

const (
	// budgetFirst is the budget before anything is known of the path; budgetEager is up to where it is doubled with each
	// round trip at first.
	budgetFirst = 64 << 10
	budgetEager = 256 << 10
	// budgetLeast and budgetMost are its bounds. No peer of ours takes more at a time than receiveWindow.
	budgetLeast = 32 << 10
	budgetMost  = receiveWindow
	// budgetSlack is for how long a path is kept busy over its round trip: the ends do not react at once. It is also the
	// shortest measurement.
	budgetSlack = 10 * time.Millisecond
	// budgetTime is for how long a budget of up to budgetEager lasts at least. Acknowledgements can take so much longer than the
	// smallest round trip, on a busy host or where others fill the line; a budget for that trip alone would slow the rate
	// down which it follows, and fall to the least.
	budgetTime = 100 * time.Millisecond
	// budgetRates is how many measurements count. They should outlast the recovery from a lost packet.
	budgetRates = 32
	// steadyRates is how many measurements without growth show that it is the path which limits the rate.
	steadyRates = 3
	// rttEvery is how often the round trip time is asked for, and rttNews how many answers in a row that are all far over
	// the smallest show that the path is another one.
	rttEvery = time.Second
	rttNews  = 15
)

// A budget is how many bytes of a PeerConnection may be on their way: handed to SCTP and not acknowledged. With fewer than
// the path carries, part of it is wasted; more lie in a queue in front of whatever comes next, or are lost. So it is a quarter
// more than the delivery rate times the smallest round trip time, both as measured (BBR bounds what is in flight in the
// same way). SCTP's own congestion control decides how much of it is in the network. Only the writer uses a budget, but
// for size and newPath.
type budget struct {
	roundTrip func() time.Duration // of the path, as last measured; 0 if it is not known

	bytes   atomic.Int64
	fixed   bool        // it is what it is; the writer's
	renewed atomic.Bool // newPath was called

	begun     time.Time // of the measurement under way
	delivered uint64    // until then
	idle      bool      // since then there was less to send than the budget

	rates  [budgetRates]float64 // bytes per second
	next   int                  // of rates
	last   float64              // rate
	grown  float64              // the best rate, when it last was a new one
	steady int                  // measurements since then, up to steadyRates

	rtt    time.Duration // the smallest
	asked  time.Time
	larger []time.Duration // answers in a row that were far over rtt
}

func newBudget(roundTrip func() time.Duration) *budget {
	b := &budget{roundTrip: roundTrip}
	b.bytes.Store(budgetFirst)
	return b
}

// size returns the budget in bytes.
func (b *budget) size() uint64 { return uint64(b.bytes.Load()) }

// low returns how far what is on its way must fall for the writer to go on, once the budget was used up. One wake-up is thus
// good for more than one packet.
func (b *budget) low() uint64 {
	size := b.size()
	return size - size/8
}

// newPath has the budget learn anew what the path carries.
func (b *budget) newPath() { b.renewed.Store(true) }

// fix sets the budget for good.
func (b *budget) fix(bytes int64) {
	b.fixed = true
	b.bytes.Store(bytes)
}

// dry notes that there is nothing to send, while so many bytes are on their way. A stream's sender is waited for after each of its
// slices, too: as long as the budget is nearly used up, there is enough.
func (b *budget) dry(waiting uint64) {
	if waiting < b.low() {
		b.idle = true
	}
}

// observe notes how many bytes have been delivered in all.
func (b *budget) observe(now time.Time, delivered uint64) {
	if b.fixed {
		return
	}
	if b.renewed.Swap(false) {
		b.rates, b.last, b.grown, b.steady, b.rtt, b.larger = [budgetRates]float64{}, 0, 0, 0, 0, nil
		b.begun, b.asked = time.Time{}, time.Time{}
	}
	if now.Sub(b.asked) >= rttEvery {
		b.asked = now
		b.learnRTT(b.roundTrip())
	}
	took := now.Sub(b.begun)
	if took < max(b.rtt, budgetSlack) {
		return
	}
	if !b.begun.IsZero() {
		// Bytes are counted by two sides, not at once, so that the count may go back by a slice.
		b.learnRate(float64(max(int64(delivered-b.delivered), 0)) / took.Seconds())
	}
	b.begun, b.delivered, b.idle = now, delivered, false
}

// learnRate takes a measurement of the delivery rate. Of two in a row the smaller one counts once the rate is steady:
// acknowledgements that are late, and then come all at once, are no fast path.
func (b *budget) learnRate(rate float64) {
	sure := rate
	if b.steady == steadyRates {
		sure = min(rate, b.last)
	}
	b.last = rate
	if best := slices.Max(b.rates[:]); b.idle && sure <= best {
		return // it says nothing about the path
	}
	b.rates[b.next] = sure
	b.next = (b.next + 1) % budgetRates
	b.resize(slices.Max(b.rates[:]))
}

// resize sets the budget by the delivery rate. While the rate grows, it is the budget, or SCTP's slow start, that limits it,
// and nothing is known of the path yet.
func (b *budget) resize(rate float64) {
	before := b.bytes.Load()
	size := int64(max(rate*(b.rtt+b.rtt/4+budgetSlack).Seconds(), min(rate*budgetTime.Seconds(), budgetEager)))
	if b.steady < steadyRates {
		b.steady++
		if rate > b.grown*9/8 {
			b.grown, b.steady = rate, 0
		}
		size = max(size, before, min(2*size, budgetEager))
	}
	b.bytes.Store(min(max(size, budgetLeast), budgetMost, 2*before))
}

// learnRTT takes a measurement of the round trip time; 0 is none.
func (b *budget) learnRTT(rtt time.Duration) {
	switch {
	case rtt <= 0:
	case b.rtt == 0 || rtt < b.rtt:
		b.rtt, b.larger = rtt, nil
	case rtt < b.rtt*3/2+budgetSlack: // what lies in queues, some of it ours
		b.larger = nil
	default:
		if b.larger = append(b.larger, rtt); len(b.larger) == rttNews {
			b.rtt, b.larger = slices.Min(b.larger), nil
		}
	}
}
