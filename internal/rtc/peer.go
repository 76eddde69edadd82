//go:build !js

package rtc

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// Events is what a Node reports. The calls about one peer never overlap and come in order; those about
// different peers may overlap. A call must not block, since it holds up its peer, and must call neither
// Flush nor Close.
type Events interface {
	// PeerConnected is called when both ends can send and receive.
	PeerConnected(p *Peer)
	// PeerDisconnected is called once for each PeerConnected, and is the last call about p. What was sent
	// and not acknowledged is lost.
	PeerDisconnected(p *Peer, reason error)
	// PeerLine passes a message, cancel, pause, resume or card. l is valid until the call returns.
	PeerLine(p *Peer, l *wire.PeerLine)
	// PeerStream passes a stream that p has opened. It is to be closed or reset.
	PeerStream(p *Peer, s *Stream)
	// PeerRejected is called when a line from p is not valid and was dropped. The link goes on.
	PeerRejected(p *Peer, err error)
	// PeerCongested is called when a lane of the queue to p has grown over Config.QueueHigh, or then fallen to
	// Config.QueueLow, with what is to be held back: StopOrdered if it is the lane of ordered messages alone, else
	// StopAll.
	PeerCongested(p *Peer, stop wire.Stop)
	// PeerPath is called when the link has moved to another path, which Peer.Stats names.
	PeerPath(p *Peer)
	// ConnectFailed is called when a Connect has not led to a link, and when the identity of a peer was refused,
	// with or without a Connect. err says why; the node may still be trying.
	ConnectFailed(id string, err *wire.Error)
	// Fault is called when something is wrong with this agent itself that no command and no peer has caused, such
	// as an identity file that can no longer be used.
	Fault(err error)
}

// Peer is a link that can carry messages. Its methods may be called from any goroutine and never block.
//
// Order of locks: evMu before move.mu, reading.mu and lineMemory.mu; evMu and move.mu before out.mu and that of the node's mailbox;
// move.mu before reading.mu, too; flushes.mu before out.mu, and Node.peersMu before both; seat.mu is held with none. No other two are held at once. evMu is the only one under which Events are called; those may
// call Send, which acquires out.mu and, if evMu is free, settles congestion.
type Peer struct {
	id     string
	stream bool // stream framing, otherwise base framing
	drains bool // the peer knows drain and drained
	cfg    *Config
	ev     Events
	dc     dataChannel // in stream framing a carrier
	stats  func() wire.PeerStats
	admit  func()      // called when the peer has said hello, in place of announce; has announce called if the link counts
	up     func()      // called after PeerConnected, once
	down   func(error) // ends the link; called when the reader has ended, and by line

	binding identity.Link                  // what both ends sign
	proof   atomic.Pointer[identity.Proof] // nil until the peer has said hello

	ownCard cardTold
	card    atomic.Pointer[[]byte] // of the peer, a JSON object; nil until it has said hello

	sendMax atomic.Int64 // bytes of the longest message that the other end takes

	hello   []byte      // the first line, in stream framing
	lanes   atomic.Bool // the peer reads text messages as a stream of their own
	out     *outbox
	budget  *budget // of what out has handed over
	transit transit
	low     chan struct{} // what is in transit fell to its low mark
	opened  chan struct{} // the far end acknowledged the data channel (base framing)
	done    chan struct{} // closed by end
	why     error         // the link ended; valid after done

	move    move
	reading gate
	seat    seat
	goneFor atomic.Pointer[error] // why the other end was gone while reading was stopped, if that is known
	inline  bool                  // the reader can do what a line calls for; like left the reader's
	left    func()                // that is for it to do
	lines   [2]longLine           // of the binary and the text stream
	flushes flushes
	streams streams

	// evMu makes calls to ev one at a time, and puts PeerConnected first and PeerDisconnected last.
	evMu  sync.Mutex
	state atomic.Int32 // written under evMu
	// toldCongested is what the last PeerCongested said; written under evMu.
	toldCongested atomic.Uint32
}

// The states of a Peer.
const (
	statePending int32 = iota
	stateLive          // PeerConnected was called
	stateEnded
)

// debug begins a line of the log.
func (p *Peer) debug() *zerolog.Event { return p.cfg.Log.Debug().Str("peer", p.id) }

// newPeer makes a Peer of an open data channel, to a peer of this description. maxSend is the longest data
// channel message that it reads; roundTrip is for its budget.
func newPeer(
	binding identity.Link, remote description, dc dataChannel, maxSend int, roundTrip func() time.Duration, cfg *Config, ev Events,
) *Peer {
	p := &Peer{
		id: binding.Other, stream: remote.stream, drains: remote.drain, cfg: cfg, ev: ev, dc: dc, binding: binding,
		low:    make(chan struct{}, 1),
		opened: make(chan struct{}, 1),
		done:   make(chan struct{}),
	}
	if p.stream {
		c := newCarrier(dc)
		p.move.carries(localMessages, c)
		p.dc = c
	}
	p.transit.first = p.dc
	p.streams.able, p.streams.ready, p.streams.opening = remote.streams, make(chan struct{}), make(chan struct{}, 1)
	p.streams.left.L = &p.streams.mu
	p.streams.oursMost = min(cfg.Limits.MaxStreams, wire.DefaultMaxStreams)
	p.budget = newBudget(roundTrip)
	p.out = newOutbox(cfg.QueueHigh, cfg.QueueLow, !p.stream, p.writeDirect)
	p.admit = p.announce
	p.reading.init()
	p.seat.left.L = &p.seat.mu
	for i := range p.lines {
		p.lines[i].other, p.lines[i].end = &p.lines[1-i], func(err error) { p.down(err) }
	}
	p.sendMax.Store(int64(min(wire.BaseMaxMessage, maxSend, cfg.Limits.MaxMessage)))
	if p.stream {
		p.sendMax.Store(int64(cfg.Limits.MaxMessage))
		hello := wire.Greeting{
			Protocol: wire.ProtocolVersion, MaxMessage: cfg.Limits.MaxMessage, Lanes: true, Identity: shownIdentity(cfg.Identity.Show(binding)),
			Card: p.ownCard.first(cfg.card), Local: p.beginMove(),
		}
		if remote.streams {
			hello.MaxStreams = cfg.Limits.MaxStreams
		}
		p.hello = wire.AppendPeerHello(nil, hello)
	}
	p.dc.OnBufferedAmountLow(func() { notify(p.low) })
	return p
}

// ID returns the peer's id.
func (p *Peer) ID() string { return p.id }

// Proof returns what the peer has shown of itself; the zero Proof if nothing.
func (p *Peer) Proof() identity.Proof {
	if proof := p.proof.Load(); proof != nil {
		return *proof
	}
	return identity.Proof{}
}

// Key returns the key that the peer has proven, in base64; "" if none.
func (p *Peer) Key() string { return p.Proof().Key.String() }

// Extended reports whether the link has control lines (stream framing).
func (p *Peer) Extended() bool { return p.stream }

// Send queues one message, which must be a valid JSON object, in the lane. It copies msg. The error is a
// [*wire.Error]: too_large, too_deep or malformed if the peer does not read messages like this one,
// queue_full over Config.QueueHard, peer_lost after the link has ended. It may call Events.PeerCongested.
func (p *Peer) Send(msg []byte, in wire.Lane) error {
	if limit := int(p.sendMax.Load()); len(msg) > limit {
		return &wire.Error{Code: wire.CodeTooLarge, Text: fmt.Sprintf(
			"message of %d bytes, peer %q takes %d", len(msg), p.id, limit)}
	}
	if !p.stream {
		if err := wire.CheckBase(msg); err != nil {
			return err
		}
	}
	switch p.out.addMessage(msg, in, p.cfg.QueueHard) {
	case addedFull:
		return &wire.Error{Code: wire.CodeQueueFull, Text: fmt.Sprintf(
			"queue of peer %q has %d of at most %d bytes, no room for %d more", p.id, p.out.size(), p.cfg.QueueHard, len(msg))}
	case addedClosed:
		return &wire.Error{Code: wire.CodePeerLost, Text: fmt.Sprintf("the link to peer %q has ended", p.id)}
	}
	// Report congestion here rather than leave it to the writer: the sooner a sender is asked to pause, the
	// less is on its way.
	p.settleCongestion()
	return nil
}

// settleCongestion calls PeerCongested until what it said last is true. If another callback is under way,
// which may be the caller's own, it leaves that to the goroutine that makes it: all settle afterwards.
func (p *Peer) settleCongestion() {
	for p.live() && p.toldCongested.Load() != uint32(p.out.congestion()) && p.evMu.TryLock() {
		if now := p.out.congestion(); p.live() && uint32(now) != p.toldCongested.Load() {
			p.toldCongested.Store(uint32(now))
			p.ev.PeerCongested(p, now)
		}
		p.evMu.Unlock()
	}
}

// Cancel tells the peer that the request is given up. It stays behind the messages sent before, since it must
// not overtake its own request. One that finds too many others queued is dropped: it only saves work.
func (p *Peer) Cancel(requestID string) {
	if !p.stream {
		return
	}
	p.out.addCancel(requestID)
}

// Pause asks the peer to send no ordered messages (StopOrdered), or nothing but replies (any other value), until Resume. Both
// overtake queued messages. The last one counts.
func (p *Peer) Pause(what wire.Stop) {
	if what == wire.StopOrdered {
		p.setPause(pauseOrdered)
	} else {
		p.setPause(pauseOn)
	}
}

// Resume ends a Pause, if there is one.
func (p *Peer) Resume() { p.setPause(pauseOff) }

func (p *Peer) setPause(s pauseState) {
	if p.stream {
		p.out.setPause(s)
	}
}

// StreamsBegun reports whether the link has a channel for streams.
func (p *Peer) StreamsBegun() bool { return p.streams.channelOrNil() != nil }

// Violation ends the link, since the peer broke the protocol: what says how.
func (p *Peer) Violation(what string) { p.down(fmt.Errorf("%w: %s", ErrViolation, what)) }

// SetReading stops or continues reading from the data channel. After a stop, a call of PeerLine that is under
// way is the last one; the peer's messages eventually fill its own queue.
func (p *Peer) SetReading(on bool) {
	p.reading.set(on)
	p.move.setReading(on, p.hungUp)
}

// hungUp is called when the other end of the socket is gone while it is not read.
func (p *Peer) hungUp(why error) {
	why = p.endReason(why)
	p.goneFor.Store(&why)
	p.remoteGone()
}

// remoteGone is called when nothing more can arrive: the reader reads what has arrived, and then ends the link, unless
// it is stopped or has no memory.
func (p *Peer) remoteGone() {
	p.reading.remoteGone()
	p.abandonLines()
}

// Queued returns how many bytes are queued for the data channel.
func (p *Peer) Queued() int { return p.out.size() }

// useLineMemory bounds what lines hold that have begun to come in.
func (p *Peer) useLineMemory(m *lineMemory) {
	for i := range p.lines {
		p.lines[i].memory = m
	}
}

// abandonLines has the reader end if it waits for memory.
func (p *Peer) abandonLines() {
	for i := range p.lines {
		p.lines[i].abandon()
	}
}

// announce reports the link as up, once.
func (p *Peer) announce() {
	defer p.settleCongestion()
	p.evMu.Lock()
	defer p.evMu.Unlock()
	if !p.state.CompareAndSwap(statePending, stateLive) {
		return
	}
	p.debug().Bool("stream", p.stream).Msg("peer connected")
	p.ev.PeerConnected(p)
	p.up()
	p.tellCard()
}

// emit makes one call to Events, if the link is up.
func (p *Peer) emit(call func()) {
	defer p.settleCongestion()
	p.evMu.Lock()
	defer p.evMu.Unlock()
	if p.live() {
		call()
	}
}

func (p *Peer) live() bool { return p.state.Load() == stateLive }

// end makes the link unusable and reports that, once. The first call gives the reason.
func (p *Peer) end(reason error) {
	p.evMu.Lock()
	defer p.evMu.Unlock()
	was := p.state.Swap(stateEnded)
	if was == stateEnded {
		return
	}
	p.why = reason
	close(p.done)
	p.move.end()
	p.reading.close()
	p.abandonLines()
	lost := p.out.close()
	if was == stateLive {
		p.debug().Err(reason).Int("unsent_bytes", lost).Msg("peer disconnected")
		p.ev.PeerDisconnected(p, reason)
	}
}

// notify wakes the receiver of c, without blocking.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
