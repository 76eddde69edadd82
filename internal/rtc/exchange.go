//go:build !js

package rtc

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/pion/webrtc/v4"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/signal"
)

// resendDelay is the delay after signaling refused a message although it was connected.
const resendDelay = 500 * time.Millisecond

// offer makes the data channel and the first offer.
func (s *session) offer() error {
	dc, err := s.pc.CreateDataChannel(channelLabel, nil)
	if err != nil {
		return localErrorf("create the data channel: %w", err)
	}
	s.useChannel(dc, true)
	return s.sendOffer(nil)
}

// sendOffer makes an offer and sends it as soon as signaling takes it.
func (s *session) sendOffer(opts *webrtc.OfferOptions) error {
	d, err := s.pc.CreateOffer(opts)
	if err != nil {
		return localErrorf("make an offer: %w", err)
	}
	return s.describe(d, signal.Description{Caps: []string{capStream, capRestart, capDrain, capStreams}})
}

// answer applies an offer and sends the answer.
func (s *session) answer(o description) error {
	if err := s.apply(o, webrtc.SDPTypeOffer); err != nil {
		return err
	}
	d, err := s.pc.CreateAnswer(nil)
	if err != nil {
		return localErrorf("make an answer: %w", err)
	}
	if err := s.describe(d, signal.Description{Answers: o.session, Caps: o.caps()}); err != nil {
		return err
	}
	s.addEarly()
	return nil
}

// applyAnswer applies the answer to our last offer.
func (s *session) applyAnswer(a description) error {
	s.answered = true
	if err := s.apply(a, webrtc.SDPTypeAnswer); err != nil {
		return err
	}
	s.addEarly()
	return nil
}

// apply applies a description of the peer's. Its certificate is the same in all of them: what a later one says could
// only be another's, and pion would go on with the first.
func (s *session) apply(d description, typ webrtc.SDPType) error {
	if s.fingerprint != "" { // a restart, in which only what is signed may change
		d.instance, d.stream, d.restart, d.drain, d.streams = s.remote.instance, s.remote.stream, s.remote.restart, s.remote.drain, s.remote.streams
		d.sctpInit = "" // SCTP goes on
	}
	if s.offerer && s.retry {
		d.sctpInit = ""
	}
	s.remote = d
	s.remoteSeen = 0
	r, err := readSDP(d.sdp, d.sctpInit)
	switch {
	case err != nil:
		return fmt.Errorf("%w: its %s cannot be applied: %w", ErrViolation, typ, err)
	case s.fingerprint != "" && s.fingerprint != r.fingerprint:
		return fmt.Errorf("%w: its %s has the fingerprint of another certificate", ErrViolation, typ)
	}
	// Who knows the one knows the other. An answerer that is DTLS's server must not be led to guess: it would send its certificate to an
	// address that nothing has confirmed (no hello-verify).
	s.haste.allowed.Store(d.sctpInit != "" && (typ == webrtc.SDPTypeAnswer || !r.dtlsClient))
	s.fingerprint = r.fingerprint
	s.sources.reset()
	s.sawCandidates(r.candidates)
	if err := s.pc.SetRemoteDescription(webrtc.SessionDescription{Type: typ, SDP: r.text}); err != nil {
		return s.notApplied(typ.String(), err)
	}
	return nil
}

// notApplied returns the error for a description that pion refuses: the peer's fault, unless something failed here.
func (s *session) notApplied(what string, err error) error {
	if s.failures.suffix(socketFailure) != "" {
		return localErrorf("apply the peer's %s: %w", what, err)
	}
	return fmt.Errorf("%w: its %s cannot be applied: %w", ErrViolation, what, err)
}

// unanswered reports whether an offer of ours has no answer yet.
func (s *session) unanswered() bool {
	return s.pc.SignalingState() == webrtc.SignalingStateHaveLocalOffer
}

// describe sends a new description of ours and then applies it, which starts all the costly work: that goes
// on while the description is on its way.
func (s *session) describe(sdp webrtc.SessionDescription, d signal.Description) error {
	d.Session, d.Instance = s.session, s.n.cfg.Instance
	d.SDP, d.SCTPInit = takeSCTPInit(sdp.SDP)
	if s.number > 0 || s.retry || !s.offerer && s.remote.sctpInit == "" {
		d.SCTPInit = ""
	}
	if s.number > 0 { // a restart
		d.Number = s.number
		d.Sig = s.n.cfg.Identity.Sign(identity.Description{
			Type: sdp.Type.String(), Own: s.self, Other: s.sl.id, OwnSession: s.session, OtherSession: s.remote.session,
			Number: d.Number, SDP: d.SDP,
		})
	}
	s.descType, s.desc = sdp.Type.String(), d
	s.local = nil
	s.failures.forget() // of the gathering before
	s.sendDescription()
	if err := s.pc.SetLocalDescription(sdp); err != nil {
		return localErrorf("apply our own %s: %w", sdp.Type, err)
	}
	return nil
}

// sendDescription sends our last description and its candidates, again if need be: the peer recognises a
// repetition by its session.
func (s *session) sendDescription() {
	s.descSent = false
	s.sendPending()
}

// repeatDescription sends it again, but not again and again: a peer that repeats its offer costs us a hundred messages.
func (s *session) repeatDescription() {
	wait := resendDelay - time.Since(s.descAt)
	if wait <= 0 {
		s.sendDescription()
		return
	}
	stopTimer(s.resend)
	s.resend = s.after(wait, s.sendDescription)
}

// sendPending sends what signaling has not taken yet: the description first, since candidates mean nothing
// without it. What signaling does not take now is sent later.
func (s *session) sendPending() {
	stopTimer(s.resend)
	if !s.n.online {
		return // registered sends it
	}
	if s.sendErr = s.trySendPending(); s.sendErr != nil {
		s.resend = s.after(resendDelay, s.sendPending)
	}
}

func (s *session) trySendPending() error {
	if !s.descSent {
		if err := s.relay(s.descType, s.desc); err != nil {
			return err
		}
		s.descSent, s.descAt = true, time.Now()
		s.localSent = 0
	}
	for s.localSent < len(s.local) {
		if err := s.relay(signal.Candidate, s.local[s.localSent]); err != nil {
			return err
		}
		s.localSent++
	}
	return nil
}

// relay has signaling relay one message to the peer.
func (s *session) relay(typ string, payload any) error {
	b, err := json.Marshal(payload)
	if err != nil {
		return err // cannot happen: payloads consist of strings and numbers
	}
	return s.n.sig.Send(signal.Message{Type: typ, PeerID: s.n.self, TargetID: s.sl.id, Payload: b})
}
