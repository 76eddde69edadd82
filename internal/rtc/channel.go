//go:build !js

package rtc

import (
	"fmt"
	"time"

	"github.com/pion/datachannel"
	"github.com/pion/webrtc/v4"

	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	channelLabel = "mesh"
	// maxChannels is how many data channels there may be, of which one is used: each costs memory here until the end of
	// the link.
	maxChannels = 9
)

// dataChannel is what a Peer needs of a data channel.
type dataChannel interface {
	ReadDataChannel(b []byte) (n int, isString bool, err error)
	// WriteDataChannel must not block.
	WriteDataChannel(b []byte, isString bool) (int, error)
	// BufferedAmount returns the bytes that the peer has not acknowledged.
	BufferedAmount() uint64
	SetBufferedAmountLowThreshold(bytes uint64)
	OnBufferedAmountLow(f func())
	SetReadDeadline(t time.Time) error
}

// theirChannel passes on a data channel that the peer has made.
func (s *session) theirChannel(dc *webrtc.DataChannel) { s.useChannel(dc, false) }

// useChannel passes a data channel to the loop once it is open; ours says that this end has made it. It is called from pion's goroutines too.
func (s *session) useChannel(dc *webrtc.DataChannel, ours bool) {
	switch n := s.channels.Add(1); {
	case n == maxChannels+1:
		s.post(func() { s.n.lost(s, fmt.Errorf("%w: it opens data channels without end", ErrViolation)) })
		return
	case n > maxChannels:
		return
	}
	dc.OnOpen(func() {
		raw, err := dc.Detach() // allowed only here
		channel, ok := raw.(*datachannel.DataChannel)
		if err != nil || !ok {
			s.post(func() { s.n.lost(s, fmt.Errorf("detach the data channel: %w", err)) })
			return
		}
		reliable := dc.Ordered() && dc.MaxRetransmits() == nil && dc.MaxPacketLifeTime() == nil
		s.post(func() { s.channelOpen(channel, dc.Label(), reliable, ours) })
	})
}

// makeStreams makes the channel for streams, at the end that made the offer.
func (s *session) makeStreams() {
	switch {
	case s.peer.move.decided.Load():
		s.streamsOnHost()
		return
	case s.onHost.proposing:
		s.onHost.streams = true
		return
	}
	dc, err := s.pc.CreateDataChannel(streamsLabel, nil)
	if err != nil {
		s.n.lost(s, localErrorf("create the data channel for streams: %w", err))
		return
	}
	s.onHost.streamsMade = true
	s.useChannel(dc, true)
}

// channelOpen makes a Peer of the data channel and starts its goroutines.
func (s *session) channelOpen(dc *datachannel.DataChannel, label string, reliable, ours bool) {
	switch {
	case label == streamsLabel && s.peer != nil && s.peer.streams.able && reliable && ours == s.offerer && s.peer.streams.channelOrNil() == nil:
		c := newCarrier(dc)
		s.peer.move.carries(localStreams, c)
		s.startStreams(c)
		return
	case label != channelLabel || s.peer != nil:
		s.n.outside.Warn(s.sl.id).Str("peer", s.sl.id).Str("label", logs.Cut(label)).Msg("unexpected data channel; closing it")
		_ = dc.Close()
		return
	case !reliable:
		s.n.lost(s, fmt.Errorf("%w: its data channel is not ordered and reliable", ErrViolation))
		return
	}
	maxSend := int(s.pc.SCTP().GetCapabilities().MaxMessageSize) // the peer's, from its SDP
	if s.remote.stream && maxSend < wire.SliceSize {
		s.n.lost(s, fmt.Errorf("%w: it reads data channel messages of %d bytes, not %d", ErrViolation, maxSend, wire.SliceSize))
		return
	}
	binding, err := s.binding()
	if err == nil && !s.remote.stream {
		_, err = s.n.cfg.Identity.Verify(binding, nil) // in base framing there is no hello to show one
		err = identityError(err)
	}
	if err != nil {
		s.n.lost(s, err)
		return
	}
	s.peer = newPeer(binding, s.remote, dc, maxSend, s.roundTrip, &s.n.cfg, s.n.ev)
	s.peer.useLineMemory(s.n.lines)
	s.peer.streams.make = func() { s.post(s.askForStreams) }
	if s.offerer {
		s.peer.streams.make = func() { s.post(s.makeStreams) }
	}
	s.peer.move.dial = s.visit
	s.peer.move.settled = func() { s.post(s.settle) }
	s.peer.move.failed = func() { s.post(s.notOnHost) }
	s.peer.admit, s.peer.stats = s.admit, s.stats
	s.peer.up = func() { s.post(s.peerUp) }
	s.peer.down = func(err error) { s.post(func() { s.n.lost(s, err) }) }
	switch {
	case s.remote.stream: // its hello says so
	case s.offerer:
		dc.OnOpen(func() { notify(s.peer.opened) })
	default:
		notify(s.peer.opened) // the peer sends only after our acknowledgement
	}
	s.n.start(s.peer)
}

// startStreams begins to use a channel for streams.
func (s *session) startStreams(c dataChannel) {
	if err := s.peer.startStreams(c, s.offerer); err != nil {
		s.n.lost(s, err)
		return
	}
	if s.up { // else peerUp comes to it
		s.n.wg.Go(s.peer.acceptStreams)
	}
}

// roundTrip returns the last round trip time that ICE has measured, 0 if none. It may be called from any goroutine.
func (s *session) roundTrip() time.Duration {
	path := s.path.Load()
	if path == nil {
		return 0
	}
	stats, ok := path.GetSelectedCandidatePairStats()
	if !ok {
		return 0
	}
	return time.Duration(stats.CurrentRoundTripTime * float64(time.Second))
}

// peerUp handles a link that has come up: PeerConnected was called.
func (s *session) peerUp() {
	s.up, s.upAt = true, time.Now()
	s.toldPath = pathOf(s.stats())
	stopTimer(s.deadline)
	s.deadline = nil
	if s.peer.streams.started() {
		s.n.wg.Go(s.peer.acceptStreams)
	}
	s.sl.linked()
	s.n.dialled(s)
	s.n.watchPaths()
	switch s.ice {
	case webrtc.ICEConnectionStateDisconnected, webrtc.ICEConnectionStateFailed:
		s.iceChanged(s.ice) // it was ignored until now
	}
	if s.offerer && s.peer.move.possible() {
		s.propose()
	}
}
