package sidecar

import (
	"sync"

	"github.com/chatixia-ai/mesh/internal/link"
	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// Over inboundHigh bytes of memory that one peer's lines take while they wait on the link, the peer is asked to
	// pause, over inboundHard its channel is no longer read; both end at inboundLow. An agent reads all the time, so
	// that many wait only if it is stopped or starved, and then what waits is in front of the other peers' lines.
	inboundHigh = 1 << 20
	inboundLow  = 256 << 10
	inboundHard = 8 << 20
	// outboundHigh is how many bytes may wait for one peer before the agent is asked to pause.
	outboundHigh = 1 << 20
	// haltedAllowance is how many bytes may still arrive after the agent has paused a peer: they were on
	// their way. A peer that sends more ignores the pause, and its channel is not read until the agent
	// resumes it. As many responses as the agent waits for do not count: holding them up could deadlock the two
	// agents.
	haltedAllowance = 64 << 20
	// messageCost is what is added to the bytes of a message that counts towards haltedAllowance.
	messageCost = 32
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
	sent    [wire.Lanes]ledger
	out, in traffic // messages, and the bytes of streams

	mu        sync.Mutex
	ended     bool
	congested wire.Stop // what the lanes of our queue to the peer that are full hold back
	refused   wire.Stop // what the far sidecar's pause holds back
	halted    wire.Stop // what our agent holds back
	since     int       // bytes of what is neither a request nor a response that arrived since then
	sinceNew  int       // bytes of others since new work is held back, but for responses that were awaited
	awaited   int       // responses that the agent may be waiting for
	queued    int       // bytes of the peer's lines waiting on the link
	stopWaits bool      // the line that tells the agent what to hold back waits on the link
	told      link.Told[flow]
}

// A flow is what agent and peer are told, and whether the peer's channel is read.
type flow struct {
	agent  wire.Stop // pause or resume towards the agent
	pause  wire.Stop // pause towards the peer: StopNothing, StopOrdered or StopNewWork
	full   bool      // too much of the peer's waits on the link
	unread bool      // the peer's channel is not read
	// The peer sends on in spite of a pause.
	ignored bool
}

func newPeer(s *Sidecar, l peerLink) *peer { return &peer{sidecar: s, peerLink: l} }

// WantLocked returns the flow that follows from the state.
func (p *peer) WantLocked(last flow) flow {
	if p.ended {
		return last
	}
	var w flow
	w.agent = max(p.congested, p.refused)
	if p.stopWaits { // told when that line is gone: a peer that changes its mind without end has one line
		w.agent = last.agent
	}
	w.pause = min(p.halted, wire.StopNewWork)
	if w.full = p.queued > inboundHigh || last.full && p.queued > inboundLow; w.full {
		w.pause = wire.StopNewWork
	}
	w.ignored = p.halted != wire.StopNothing && p.since+p.sinceNew > haltedAllowance
	w.unread = p.halted == wire.StopAll || p.halted != wire.StopNothing && !p.Extended() || w.ignored ||
		p.queued > inboundHard || last.unread && p.queued > inboundLow
	return w
}

// Tell carries out the change of the flow.
func (p *peer) Tell(was, want flow) {
	if was.agent != want.agent {
		p.sidecar.tell(wire.FeatureFlow, stopLine{p}, func(b []byte) []byte {
			switch {
			case p.hasEnded(): // behind peer_disconnected it could stop the next link
				return b
			case want.agent == wire.StopNothing:
				return wire.AppendResume(b, p.ID())
			}
			return wire.AppendPause(b, p.ID(), want.agent)
		})
	}
	switch {
	case want.pause == was.pause:
	case want.pause == wire.StopNothing:
		p.Resume()
	default:
		p.Pause(want.pause)
	}
	if was.unread != want.unread {
		p.SetReading(!want.unread)
	}
	if want.ignored && p.StreamsBegun() { // all of a link shares one receive window
		p.Violation("it sends on in spite of a pause")
	}
}

// update changes the state and carries out what follows from it.
func (p *peer) update(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	p.told.SettleLocked(&p.mu, p)
}

func (p *peer) setCongested(what wire.Stop) { p.update(func() { p.congested = what }) }
func (p *peer) setRefused(what wire.Stop)   { p.update(func() { p.refused = what }) }
func (p *peer) end()                        { p.update(func() { p.ended = true }) }

// setHalted is called when the agent holds back more or less.
func (p *peer) setHalted(what wire.Stop) {
	p.update(func() {
		if p.halted == wire.StopNothing || what == wire.StopNothing {
			p.since = 0
		}
		if p.halted < wire.StopNewWork || what < wire.StopNewWork {
			p.sinceNew = 0
		}
		p.halted = what
	})
}

// haltOf returns what the agent holds back by a pause or resume.
func haltOf(cmd *wire.Line) wire.Stop {
	if cmd.Type == wire.TypeResume {
		return wire.StopNothing
	}
	return cmd.Stop
}

// settle carries out what follows from lines that were charged.
func (p *peer) settle() { p.update(func() {}) }

// hasEnded is called with the link's lock held.
func (p *peer) hasEnded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// Charge is called with the link's lock held, so it only counts; settle or arrived follows with the consequences.
func (p *peer) Charge(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queued += n
}

// Release is called when n bytes no longer wait on the link.
func (p *peer) Release(n int) { p.update(func() { p.queued -= n }) }

// A stopLine is the account of the line that tells the agent what to hold back for a peer.
type stopLine struct{ *peer }

// Charge is called with the link's lock held.
func (l stopLine) Charge(int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopWaits = true
}

// Release is called when the line no longer waits.
func (l stopLine) Release(int) { l.update(func() { l.stopWaits = false }) }

// send sends a message to the peer, and notes it.
func (p *peer) send(m *wire.Message) error {
	p.asked(m) // before the response can arrive
	if err := p.Send(m.Raw, m.Lane()); err != nil {
		return err
	}
	in, bytes := wire.LaneOrdered, len(m.Raw)
	if p.Extended() {
		in = m.Lane()
		bytes++ // the end of its line
	}
	p.out.message(len(m.Raw))
	p.sent[in].add(bytes, func() int { return p.Unacknowledged(in) })
	return nil
}

// unsent returns how many messages there are in so many bytes of each lane that were sent last.
func (p *peer) unsent(bytes [wire.Lanes]int) (messages int) {
	for lane := range p.sent {
		messages += p.sent[lane].count(bytes[lane])
	}
	return messages
}

// asked is called before a message is sent to the peer, which may have to respond to it.
func (p *peer) asked(m *wire.Message) {
	if len(m.RequestID) > 0 && wire.WantsResponse(string(m.Type), "id") {
		p.await(1)
	}
}

// gaveUp is called when the agent does not wait for a response any more.
func (p *peer) gaveUp() { p.await(-1) }

func (p *peer) await(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.awaited = max(p.awaited+n, 0)
}

// arrived is called after a message of the peer was forwarded.
func (p *peer) arrived(m *wire.Message) {
	response := m.RequestID != nil && wire.CanRespond(string(m.Type))
	request := wire.WantsResponse(string(m.Type), string(m.RequestID))
	p.update(func() {
		switch {
		case response && p.awaited > 0:
			p.awaited--
		case p.halted >= wire.StopNewWork && (response || request):
			p.sinceNew += len(m.Raw) + messageCost
		case p.halted != wire.StopNothing && !response && !request:
			p.since += len(m.Raw) + messageCost
		}
	})
}
