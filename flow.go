package mesh

import (
	"sync"
	"time"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// Between inboundHigh and inboundLow bytes of one peer waiting on the link,
	// the far side has been asked to pause; at inboundHard its channel is not
	// read any more. The agent reads always, so this fills only when the agent
	// is stopped or starved.
	inboundHigh = 1 << 20
	inboundLow  = 256 << 10
	inboundHard = 64 << 20
	// outboundHigh is how much may wait for one peer before the agent is asked
	// to pause.
	outboundHigh = 1 << 20
	// overrunWait is how long the link is not served when an agent overruns the
	// queue all the same, because it has not yet come to read the pause.
	overrunWait = 10 * time.Second
	// haltedAllowance is what may still arrive after the agent has paused a
	// peer: what was on its way. A peer that sends more ignores the pause, and
	// its channel is not read until the agent resumes. Responses do not count:
	// to hold them up could lock both sides.
	haltedAllowance = 64 << 20
)

// crossing is the most that may still come from an agent after it was asked to
// pause: what waits for its writer, what its writer holds, each full and one
// message over, and what the system buffers. The queue to a peer takes it, so
// that an agent which heeds the pause never loses a message.
func crossing(l wire.Limits) int { return 2*(linkQueue+l.MaxLine()) + 1<<20 }

// A remote is one live peer as its sidecar sees it: the peer link, and who is
// to send and who is to wait. It is the account of the peer's messages on the
// link.
type remote struct {
	sidecar *sidecar
	peer    *rtc.Peer

	mu        sync.Mutex
	ended     bool
	acting    bool // a goroutine is carrying out a change
	congested bool // our queue to the peer is full
	refused   bool // the far sidecar said pause
	halted    bool // our agent said pause
	since     int  // bytes of new work that arrived since
	queued    int  // bytes of the peer's messages waiting on the link
	told      flow // what agent and peer know of it

	overrun bool // the agent went on in spite of a pause and a wait
}

// awaitRoom waits until the queue to the peer has drained, for overrunWait at the
// most, and reports whether it has. Other peers wait with it, so it does that
// once until the queue has drained. It polls: this is for a moment, and rare.
func (r *remote) awaitRoom() bool {
	r.mu.Lock()
	overrun := r.overrun
	r.mu.Unlock()
	if overrun {
		return false
	}
	began := time.Now()
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for r.peer.Queued() > outboundHigh {
		select {
		case <-t.C:
		case <-r.sidecar.link.done:
			return false
		}
		if time.Since(began) > overrunWait {
			r.update(func() { r.overrun = r.congested })
			return false
		}
	}
	return true
}

// flow is what agent and peer have been told.
type flow struct {
	agent   stop // pause or resume towards the agent
	pause   bool // pause towards the peer
	reading bool // we read from the peer's channel
}

// stop says what an agent is to hold back for one peer.
type stop int

const (
	stopNothing stop = iota
	stopNewWork      // the peer is busy: sends and requests wait, replies pass
	stopAll          // our queue to the peer is full: replies wait, too
)

func (r *remote) want() flow {
	w := flow{reading: true}
	switch {
	case r.congested:
		w.agent = stopAll
	case r.refused:
		w.agent = stopNewWork
	}
	w.pause = r.halted || r.queued > inboundHigh || r.told.pause && r.queued > inboundLow
	switch {
	case r.halted && (!r.peer.Extended() || r.since > haltedAllowance):
		w.reading = false
	case r.queued > inboundHard, !r.told.reading && r.queued > inboundLow:
		w.reading = false
	}
	return w
}

// update changes the state and carries out what follows from it. Nothing is
// written with the lock held; one goroutine acts at a time and looks again
// before it stops, so that what agent and peer hear is in order and the last
// word is right.
func (r *remote) update(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	if r.acting {
		return
	}
	r.acting = true
	for !r.ended {
		was, want := r.told, r.want()
		if was == want {
			break
		}
		r.told = want
		r.mu.Unlock()
		r.act(was, want)
		r.mu.Lock()
	}
	r.acting = false
}

func (r *remote) act(was, want flow) {
	if was.agent != want.agent {
		id := r.peer.ID()
		r.sidecar.tell(wire.FeatureFlow, func(b []byte) []byte {
			switch {
			case r.hasEnded(): // behind peer_disconnected it could stop the next link
				return b
			case want.agent == stopNothing:
				return wire.AppendResume(b, id)
			}
			return wire.AppendPause(b, id, want.agent == stopAll)
		})
	}
	switch {
	case want.pause && !was.pause:
		r.peer.Pause()
	case was.pause && !want.pause:
		r.peer.Resume()
	}
	if was.reading != want.reading {
		r.peer.SetReading(want.reading)
	}
}

func (r *remote) setRefused(on bool) { r.update(func() { r.refused = on }) }
func (r *remote) setHalted(on bool)  { r.update(func() { r.halted, r.since = on, 0 }) }

func (r *remote) setCongested(on bool) { r.update(func() { r.congest(on) }) }

func (r *remote) end() {
	r.update(func() {
		r.congest(false)
		r.ended = true
	})
}

// congest is called with mu held.
func (r *remote) congest(on bool) {
	switch {
	case on && !r.congested:
		r.sidecar.congested.Add(1)
	case !on && r.congested:
		r.sidecar.congested.Add(-1)
	}
	r.congested, r.overrun = on, r.overrun && on
}

// hasEnded is called with the link's lock held.
func (r *remote) hasEnded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}

// charge is called with the link's lock held, so it only counts; arrived
// follows with the consequences.
func (r *remote) charge(n int) {
	r.mu.Lock()
	r.queued += n
	r.mu.Unlock()
}

func (r *remote) release(n int) { r.update(func() { r.queued -= n }) }

// arrived follows the forwarding of one message.
func (r *remote) arrived(m *wire.Message) {
	r.update(func() {
		if r.halted && (m.RequestID == nil || !canRespond(string(m.Type))) {
			r.since += len(m.Raw)
		}
	})
}
