package sidecar

import (
	"sync"

	"github.com/chatixia-ai/mesh/internal/link"
	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// Over inboundHigh bytes of one peer's messages that wait on the link, the peer is asked to pause, over
	// inboundHard its channel is no longer read; both end at inboundLow. An agent reads all the time, so
	// that many wait only if it is stopped or starved.
	inboundHigh = 1 << 20
	inboundLow  = 256 << 10
	inboundHard = 64 << 20
	// outboundHigh is how many bytes may wait for one peer before the agent is asked to pause.
	outboundHigh = 1 << 20
	// haltedAllowance is how many bytes may still arrive after the agent has paused a peer: they were on
	// their way. A peer that sends more ignores the pause, and its channel is not read until the agent
	// resumes it. Responses do not count: holding them up could deadlock the two agents.
	haltedAllowance = 64 << 20
)

// crossing returns how many bytes may still come from an agent after it was asked to pause: what waits for
// its writer and what its writer holds, each full and one message over, and what the system buffers. The
// queue to a peer has room for them, so that an agent that heeds the pause never loses a message.
func crossing(l wire.Limits) int { return 2*(link.QueueSize+l.MaxLine()) + 1<<20 }

// A peer is one live peer as the sidecar sees it: the peer link, and which side is to hold back what. It
// is the account of the peer's messages on the link.
//
// Order of locks: the link's mutex before a peer's. A peer's mutex is never held while lines are written
// or the peerLink is called.
type peer struct {
	sidecar *Sidecar
	peerLink

	mu        sync.Mutex
	ended     bool
	congested bool // our queue to the peer is full
	refused   bool // the far sidecar said pause
	halted    bool // our agent said pause
	since     int  // bytes of new work that arrived since then
	queued    int  // bytes of the peer's messages waiting on the link
	told      link.Told[flow]
}

// A flow is what agent and peer are told, and whether the peer's channel is read.
type flow struct {
	agent  wire.Stop // pause or resume towards the agent
	pause  bool      // pause towards the peer
	unread bool      // the peer's channel is not read
}

func newPeer(s *Sidecar, l peerLink) *peer { return &peer{sidecar: s, peerLink: l} }

// WantLocked returns the flow that follows from the state.
func (p *peer) WantLocked(last flow) flow {
	if p.ended {
		return last
	}
	var w flow
	switch {
	case p.congested:
		w.agent = wire.StopAll
	case p.refused:
		w.agent = wire.StopNewWork
	}
	w.pause = p.halted || p.queued > inboundHigh || last.pause && p.queued > inboundLow
	w.unread = p.halted && (!p.Extended() || p.since > haltedAllowance) ||
		p.queued > inboundHard || last.unread && p.queued > inboundLow
	return w
}

// Tell carries out the change of the flow.
func (p *peer) Tell(was, want flow) {
	if was.agent != want.agent {
		p.sidecar.tell(wire.FeatureFlow, func(b []byte) []byte {
			switch {
			case p.hasEnded(): // behind peer_disconnected it could stop the next link
				return b
			case want.agent == wire.StopNothing:
				return wire.AppendResume(b, p.ID())
			}
			return wire.AppendPause(b, p.ID(), want.agent == wire.StopAll)
		})
	}
	switch {
	case want.pause && !was.pause:
		p.Pause()
	case was.pause && !want.pause:
		p.Resume()
	}
	if was.unread != want.unread {
		p.SetReading(!want.unread)
	}
}

// update changes the state and carries out what follows from it.
func (p *peer) update(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	p.told.SettleLocked(&p.mu, p)
}

func (p *peer) setCongested(on bool) { p.update(func() { p.congested = on }) }
func (p *peer) setRefused(on bool)   { p.update(func() { p.refused = on }) }
func (p *peer) setHalted(on bool)    { p.update(func() { p.halted, p.since = on, 0 }) }
func (p *peer) end()                 { p.update(func() { p.ended = true }) }

// hasEnded is called with the link's lock held.
func (p *peer) hasEnded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// Charge is called with the link's lock held, so it only counts; arrived follows with the consequences.
func (p *peer) Charge(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queued += n
}

// Release is called when n bytes no longer wait on the link.
func (p *peer) Release(n int) { p.update(func() { p.queued -= n }) }

// arrived is called after a message of the peer was forwarded.
func (p *peer) arrived(m *wire.Message) {
	p.update(func() {
		if p.halted && (m.RequestID == nil || !wire.CanRespond(string(m.Type))) {
			p.since += len(m.Raw)
		}
	})
}
