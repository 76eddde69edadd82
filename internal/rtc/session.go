package rtc

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/pion/datachannel"
	"github.com/pion/webrtc/v4"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	channelLabel = "mesh"
	// maxLocalCandidates and maxRemoteCandidates bound the candidates of one ICE generation. A host
	// has one for each of its addresses and each ICE server.
	maxLocalCandidates  = 128
	maxRemoteCandidates = 128
	// resendDelay is the wait after signaling was connected but took no message.
	resendDelay = 500 * time.Millisecond
)

// session is one PeerConnection, as the node's loop sees it. Only the loop uses it.
type session struct {
	link
	n   *Node
	sl  *slot
	pc  *webrtc.PeerConnection
	log zerolog.Logger

	// The last description of ours and its candidates, and how much of that signaling has taken.
	descType   string
	desc       signal.Description
	descSent   bool
	local      []signal.ICECandidate
	localSent  int
	remoteSeen int // the peer's candidates since its last description

	peer       *Peer // once there is a data channel
	up         bool  // PeerConnected was called
	ice        webrtc.ICEConnectionState
	recovering bool
	cutAt      time.Time
	restarts   int

	began    time.Time
	deadline *time.Timer // of the attempt, or of the recovery
	restart  *time.Timer
	resend   *time.Timer
}

// newSession makes the slot's next session and its PeerConnection. Its callbacks count only while it is
// the slot's current one.
func (n *Node) newSession(sl *slot, offerer bool) (*session, error) {
	pc, err := n.api.connection()
	if err != nil {
		return nil, fmt.Errorf("make a PeerConnection: %w", err)
	}
	s := &session{n: n, sl: sl, pc: pc, link: link{session: randomID(), offerer: offerer}, began: time.Now()}
	s.log = n.log.With().Str("peer", sl.id).Str("session", s.session).Logger()
	pc.OnICECandidate(func(c *webrtc.ICECandidate) {
		if c != nil {
			init := c.ToJSON()
			s.post(func() { s.localCandidate(init) })
		}
	})
	pc.OnICEConnectionStateChange(func(state webrtc.ICEConnectionState) {
		s.post(func() { s.iceChanged(state) })
	})
	pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		switch state {
		case webrtc.PeerConnectionStateClosed: // pion closes it when the peer has
			s.post(s.transportGone)
			n.box.post(func() { n.unpark(s) })
		case webrtc.PeerConnectionStateFailed: // ICE, which iceChanged sees too, or DTLS
			s.post(s.transportFailed)
			// The far end sees it fail, too, but perhaps not in the same moment.
			time.AfterFunc(n.cfg.timing.baseClosed, func() { n.box.post(func() { n.unpark(s) }) })
		}
	})
	pc.SCTP().OnClose(func(error) { s.post(s.transportGone) })
	pc.OnDataChannel(s.useChannel)
	sl.cur = s
	s.setDeadline(n.cfg.ConnectTimeout, func() {
		n.lost(s, fmt.Errorf("%w: no link within %s", ErrUnreachable, n.cfg.ConnectTimeout))
	})
	return s, nil
}

// missing tells what a link that is not up waits for.
func (s *session) missing() string {
	state := s.pc.ICEConnectionState()
	connected := state == webrtc.ICEConnectionStateConnected || state == webrtc.ICEConnectionStateCompleted
	switch {
	case s.descType == "":
		return "there is no description of ours"
	case !connected && !s.descSent:
		return "signaling has not taken our " + s.descType
	case !s.described():
		return "the peer has not answered"
	case !connected:
		return "ICE is " + state.String()
	case s.peer == nil:
		return "ICE is connected, but there is no data channel"
	case !s.remote.stream:
		return "the peer has not acknowledged the data channel"
	}
	if n := s.peer.dc.BufferedAmount(); n > 0 {
		return fmt.Sprintf("the peer has not said hello, and not acknowledged %d bytes of ours", n)
	}
	return "the peer has not said hello, but acknowledged ours"
}

// post runs f in the loop if the session is current then.
func (s *session) post(f func()) {
	s.n.box.post(func() {
		if s.sl.cur == s {
			f()
		}
	})
}

func (s *session) after(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() { s.post(f) })
}

// setDeadline replaces the deadline; an earlier one that is already in the mailbox no longer counts.
func (s *session) setDeadline(d time.Duration, f func()) {
	stopTimer(s.deadline)
	var t *time.Timer
	t = s.after(d, func() {
		if s.deadline == t {
			f()
		}
	})
	s.deadline = t
}

func (s *session) stopTimers() {
	stopTimer(s.deadline)
	stopTimer(s.restart)
	stopTimer(s.resend)
	s.deadline = nil
}

func stopTimer(t *time.Timer) {
	if t != nil {
		t.Stop()
	}
}

// offer makes the data channel and the first offer.
func (s *session) offer() error {
	dc, err := s.pc.CreateDataChannel(channelLabel, nil)
	if err != nil {
		return fmt.Errorf("create the data channel: %w", err)
	}
	s.useChannel(dc)
	return s.sendOffer(nil)
}

// sendOffer makes an offer and sends it, as soon as signaling takes it.
func (s *session) sendOffer(opts *webrtc.OfferOptions) error {
	d, err := s.pc.CreateOffer(opts)
	if err != nil {
		return fmt.Errorf("make an offer: %w", err)
	}
	return s.describe(d, signal.Description{Caps: []string{capStream, capRestart}})
}

// answer applies an offer and sends the answer.
func (s *session) answer(o description) error {
	s.setRemote(o)
	err := s.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: o.sdp})
	if err != nil {
		return fmt.Errorf("%w: its offer cannot be applied: %w", ErrViolation, err)
	}
	d, err := s.pc.CreateAnswer(nil)
	if err != nil {
		return fmt.Errorf("make an answer: %w", err)
	}
	desc := signal.Description{Answers: o.session}
	if o.stream {
		desc.Caps = append(desc.Caps, capStream)
	}
	if o.restart {
		desc.Caps = append(desc.Caps, capRestart)
	}
	if err := s.describe(d, desc); err != nil {
		return err
	}
	s.addEarly()
	return nil
}

// applyAnswer applies the answer to our last offer.
func (s *session) applyAnswer(a description) error {
	s.setRemote(a)
	s.answered = true
	err := s.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: a.sdp})
	if err != nil {
		return fmt.Errorf("%w: its answer cannot be applied: %w", ErrViolation, err)
	}
	s.addEarly()
	return nil
}

func (s *session) setRemote(d description) {
	s.remote = d
	s.remoteSeen = 0
}

// waiting tells whether an offer of ours is not answered.
func (s *session) waiting() bool {
	return s.pc.SignalingState() == webrtc.SignalingStateHaveLocalOffer
}

// describe sends a new description of ours and applies it: in this order, since to apply it is the start
// of all that costs, which goes on while the description is on its way.
func (s *session) describe(sdp webrtc.SessionDescription, d signal.Description) error {
	d.SDP, d.Session, d.Instance = sdp.SDP, s.session, s.n.cfg.Instance
	s.descType, s.desc = sdp.Type.String(), d
	s.local = nil
	s.sendAgain()
	if err := s.pc.SetLocalDescription(sdp); err != nil {
		return fmt.Errorf("apply our own %s: %w", sdp.Type, err)
	}
	return nil
}

// sendAgain sends our last description and its candidates. The peer knows a repetition by its session.
func (s *session) sendAgain() {
	s.descSent = false
	s.send()
}

// send sends what is new: description first, since candidates mean nothing before it. What signaling
// does not take stays for later.
func (s *session) send() {
	stopTimer(s.resend)
	if !s.n.online {
		return // registered sends it
	}
	err := s.trySend()
	if err == nil {
		return
	}
	s.log.Debug().Err(err).Msg("signaling does not take a message, trying again")
	s.resend = s.after(resendDelay, s.send)
}

func (s *session) trySend() error {
	if !s.descSent {
		if err := s.sendMessage(s.descType, s.desc); err != nil {
			return err
		}
		s.descSent = true
		s.localSent = 0
	}
	for s.localSent < len(s.local) {
		if err := s.sendMessage(signal.Candidate, s.local[s.localSent]); err != nil {
			return err
		}
		s.localSent++
	}
	return nil
}

func (s *session) sendMessage(typ string, payload any) error {
	b, err := json.Marshal(payload)
	if err != nil {
		return err // cannot be: both payloads are strings and numbers
	}
	return s.n.sig.Send(signal.Message{Type: typ, PeerID: s.n.self, TargetID: s.sl.id, Payload: b})
}

func (s *session) localCandidate(c webrtc.ICECandidateInit) {
	if len(s.local) >= maxLocalCandidates {
		return
	}
	s.local = append(s.local, signal.ICECandidate{
		Candidate: c.Candidate, SDPMid: c.SDPMid, SDPMLineIndex: c.SDPMLineIndex,
		Session: s.session, Instance: s.n.cfg.Instance,
	})
	if s.descSent {
		s.send()
	}
}

func (s *session) remoteCandidate(c signal.ICECandidate) {
	if s.remoteSeen++; s.remoteSeen > maxRemoteCandidates {
		s.log.Debug().Int("limit", maxRemoteCandidates).Msg("candidate dropped, there are too many")
		return
	}
	err := s.pc.AddICECandidate(webrtc.ICECandidateInit{
		Candidate: c.Candidate, SDPMid: c.SDPMid, SDPMLineIndex: c.SDPMLineIndex,
	})
	if err != nil {
		s.n.outside.Warn().Err(err).Str("peer", s.sl.id).Str("candidate", c.Candidate).Msg("candidate dropped")
	}
}

func (s *session) addEarly() {
	for _, c := range s.sl.takeEarly(s.remote.session) {
		s.remoteCandidate(c)
	}
}

// useChannel waits for a data channel to open. It runs in pion's goroutines too.
func (s *session) useChannel(dc *webrtc.DataChannel) {
	dc.OnOpen(func() {
		raw, err := dc.Detach() // allowed only here
		channel, ok := raw.(*datachannel.DataChannel)
		if err != nil || !ok {
			s.post(func() { s.n.lost(s, fmt.Errorf("detach the data channel: %w", err)) })
			return
		}
		reliable := dc.Ordered() && dc.MaxRetransmits() == nil && dc.MaxPacketLifeTime() == nil
		s.post(func() { s.channelOpen(channel, dc.Label(), reliable) })
	})
}

// channelOpen makes a Peer of the data channel and starts its goroutines.
func (s *session) channelOpen(dc *datachannel.DataChannel, label string, reliable bool) {
	switch {
	case label != channelLabel || s.peer != nil:
		s.log.Warn().Str("label", label).Msg("data channel closed, it is not ours")
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
	s.peer = newPeer(s.sl.id, s.remote.stream, dc, maxSend, &s.n.cfg, s.n.ev)
	s.peer.up = func() { s.post(s.peerUp) }
	s.peer.down = func(err error) { s.post(func() { s.n.lost(s, err) }) }
	switch {
	case s.remote.stream: // hello tells
	case s.offerer:
		dc.OnOpen(func() { notify(s.peer.opened) })
	default:
		notify(s.peer.opened) // the peer sends only after our acknowledgement
	}
	s.n.start(s.peer)
}

// peerUp follows PeerConnected.
func (s *session) peerUp() {
	s.up = true
	stopTimer(s.deadline)
	s.deadline = nil
	s.sl.linked()
	s.n.dialled(s)
	switch s.ice {
	case webrtc.ICEConnectionStateDisconnected, webrtc.ICEConnectionStateFailed:
		s.iceChanged(s.ice) // it did not count before
	}
}

// transportGone follows the end of the SCTP association or of the PeerConnection, neither of which
// comes back.
func (s *session) transportGone() {
	if s.peer != nil {
		s.peer.reading.remoteGone() // the reader reads what has arrived, and then ends the link
		return
	}
	s.n.lost(s, ErrPeerClosed)
}

func (s *session) transportFailed() {
	if !s.up {
		s.n.lost(s, fmt.Errorf("%w: ICE or DTLS failed", ErrUnreachable))
	}
}
