package sidecar

import (
	"context"

	"github.com/chatixia-ai/mesh/internal/relief"
	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// Network are the settings of the network.
type Network = rtc.Settings

// A network links a sidecar to the sidecars of other agents. webRTC is the one there is.
type network interface {
	// join takes part in the mesh until ctx ends or taking part is over for good, which is an error.
	join(ctx context.Context) error
	// connect asks for a link to a peer now. If that leads nowhere, connectFailed is called; it is also called for
	// a peer whose identity was refused, whoever asked for the link.
	connect(peer string)
	// setCard sets what peers are told of the agent: a JSON object, nil for nothing.
	setCard(card []byte)
	// flush blocks until the peers have everything that was sent, or ctx ends.
	flush(ctx context.Context) error
	// unsent flushes like flush, and returns for the peers that may not have everything how many bytes they have not
	// acknowledged of each lane. Those whose links have ended meanwhile are among them, unless they have left.
	unsent(ctx context.Context) map[string][wire.Lanes]int
	// flushStreams blocks until the peers have what was written to streams, or ctx ends.
	flushStreams(ctx context.Context)
	// openStream opens a stream to a peer. The error is a *wire.Error, or the cause of ctx.
	openStream(ctx context.Context, p peerLink) (Stream, error)
	// close flushes while ctx lasts and returns when nothing of the network is left.
	close(ctx context.Context) error
}

// A peerLink is a live link to one peer. Its methods may be called from any goroutine and never block.
type peerLink interface {
	ID() string
	Key() string    // the key that the peer has proven, base64; "" if none
	Extended() bool // it has control lines
	Card() []byte   // what the peer says about its agent, a JSON object; nil if nothing
	Stats() wire.PeerStats
	Send(msg []byte, in wire.Lane) error // a *wire.Error
	// Unacknowledged returns how many bytes of a lane the peer has not acknowledged, at most.
	Unacknowledged(in wire.Lane) int
	Cancel(requestID string)
	Pause(wire.Stop)    // asks the peer to send no ordered messages, or no new work
	Resume()            // ends that
	SetReading(on bool) // stops and continues reading what the peer sends
	// Inline reports whether networkEvents.peerLine may leave work, which Leave does: it is done by the goroutine that reads what the
	// peer sends, once it holds no locks.
	Inline() bool
	Leave(work func())
	// Attend may have the caller read what the peer sends until the guest is over, or ctx. It may also return before.
	Attend(ctx context.Context, g *relief.Guest)
	// StreamsBegun reports whether there have been streams, which stop while the peer is not read.
	StreamsBegun() bool
	// Violation ends the link, because the peer broke the protocol.
	Violation(what string)
}

// networkEvents are what a network reports. Calls about one peer are in order and one at a time, those
// about different peers may be concurrent, and none may block. A call may call the peerLink's methods.
// The network may hold a lock for that peer meanwhile, and Send may call peerCongested, so the sidecar
// must hold none of its own locks when it calls Send.
type networkEvents interface {
	peerConnected(p peerLink)
	peerDisconnected(p peerLink, reason error)
	peerLine(p peerLink, l *wire.PeerLine) // l is valid until it returns
	peerStream(p peerLink, s Stream)       // s is to be closed or reset
	peerRejected(p peerLink, err error)
	peerCongested(p peerLink, stop wire.Stop)
	peerPath(p peerLink) // it has moved to another path
	connectFailed(peer string, err *wire.Error)
	fault(err error) // about this agent itself, and caused by no command
	signalingChanged(st signal.Status)
}
