//go:build !js

package rtc

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/pace"
	"github.com/chatixia-ai/mesh/internal/signal"
)

// Receive handles a message that signaling relayed, or an error of the server.
func (n *Node) Receive(m signal.Message) {
	work, err := n.decode(m)
	switch {
	case err != nil:
		n.outside.Warn(m.PeerID).Err(err).Str("type", m.Type).Str("from", logs.Cut(m.PeerID)).Msg("signaling message dropped")
	case work != nil && !n.mail.post(n.box, m.PeerID, len(m.Payload), work):
		n.outside.Warn(m.PeerID).Str("type", m.Type).Str("from", m.PeerID).Msg("too many signaling messages queued; one dropped")
	}
}

// decode returns what the loop is to do about a message, nil if nothing.
func (n *Node) decode(m signal.Message) (func(), error) {
	if len(m.PeerID) > maxIDLength {
		return nil, fmt.Errorf("peer_id of %d bytes, the limit is %d", len(m.PeerID), maxIDLength)
	}
	switch m.Type {
	case signal.Offer, signal.Answer:
		var d signal.Description
		if err := signal.Decode(m.Payload, &d); err != nil {
			return nil, fmt.Errorf("payload: %w", err)
		}
		if err := checkIDs(d.Session, d.Instance, d.Answers, d.Sig); err != nil {
			return nil, err
		}
		// It is read again when it is applied: what counts of it depends on the link.
		if _, err := readSDP(d.SDP, d.SCTPInit); err != nil {
			return nil, err
		}
		if m.Type == signal.Offer {
			return func() { n.offered(m.PeerID, newDescription(d)) }, nil
		}
		if d.Restart {
			return func() { n.asked(m.PeerID, newDescription(d)) }, nil
		}
		return func() { n.answered(m.PeerID, newDescription(d)) }, nil
	case signal.Candidate:
		var c signal.ICECandidate
		if err := signal.Decode(m.Payload, &c); err != nil {
			return nil, fmt.Errorf("payload: %w", err)
		}
		if err := checkIDs(c.Session, c.Instance, value(c.SDPMid)); err != nil {
			return nil, err
		}
		if len(c.Candidate) > maxCandidate {
			return nil, fmt.Errorf("candidate of %d bytes, the limit is %d", len(c.Candidate), maxCandidate)
		}
		return func() { n.candidate(m.PeerID, c) }, nil
	case signal.Left:
		var l signal.LeftPayload
		if err := signal.Decode(m.Payload, &l); err != nil {
			return nil, fmt.Errorf("payload: %w", err)
		}
		return func() { n.left(l) }, nil
	case signal.ErrorType:
		var e signal.ErrorPayload
		if err := signal.Decode(m.Payload, &e); err != nil {
			return nil, fmt.Errorf("payload: %w", err)
		}
		return func() { n.serverError(e) }, nil
	}
	return nil, nil
}

func checkIDs(ids ...string) error {
	for _, id := range ids {
		if len(id) > maxIDLength {
			return fmt.Errorf("session, instance, sdpMid or sig of %d bytes, the limit is %d", len(id), maxIDLength)
		}
	}
	return nil
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// The methods of Node below run in the loop.

// offered handles an offer.
func (n *Node) offered(id string, o description) {
	if n.ending || !n.online {
		return
	}
	sl, bad := n.slot(id)
	if bad != nil {
		n.outside.Warn(id).Str("peer", logs.Cut(id)).Str("reason", bad.Text).Msg("offer dropped")
		return
	}
	defer n.tidy(sl)
	sl.heard(o)
	n.alive(sl)
	s := sl.about(o.session)
	var neg *negotiation
	if s != nil {
		neg = &s.negotiation
	}
	v := judgeOffer(n.self, id, neg, o)
	n.outside.Debug(id).Str("peer", id).Str("session", o.session).Stringer("verdict", v).Msg("offer")
	switch v {
	case repeat:
		if s.descType == signal.Answer {
			s.repeatDescription()
		}
	case insist:
		s.repeatDescription()
	case hold:
		sl.held = &o
		stopTimer(sl.holding)
		sl.holding = n.after(sl, n.cfg.timing.glareHold, func() { n.acceptHeld(sl) })
	case accept:
		if n.inPace(sl, o) {
			n.accept(sl, o)
		}
	case apply:
		if s.signedByPeer(signal.Offer, o) && n.inPace(sl, o) {
			n.applyRestart(s, o)
		}
	}
}

// applyRestart answers an offer to restart ICE.
func (n *Node) applyRestart(s *session, o description) {
	if s.onHost.moved.Load() { // it has no use for a path
		return
	}
	s.number = o.number
	s.stale = false
	s.refreshServers() // before the offer is applied, which begins to gather
	if err := s.answer(o); err != nil {
		n.lost(s, err)
		return
	}
	s.checkedAt = time.Now()
	if s.up {
		s.interrupted()
	}
}

// signedByPeer reports whether a restart's description may be applied. If the peer has proven its key, it has signed
// the description, and no earlier one can be shown again: signaling must not be able to end the link.
func (s *session) signedByPeer(typ string, d description) bool {
	if s.peer == nil || s.peer.Proof().Key.IsZero() {
		return true
	}
	fresh := d.number > s.number
	if typ == signal.Answer {
		fresh = d.number == s.number
	}
	made := identity.Description{
		Type: typ, Own: s.sl.id, Other: s.self, OwnSession: d.session, OtherSession: s.session, Number: d.number, SDP: d.sdp,
	}
	if fresh && made.SignedBy(s.peer.Proof(), d.sig) {
		return true
	}
	s.n.outside.Warn(s.sl.id).Str("peer", s.sl.id).Str("type", typ).Msg("restart without the peer's signature dropped")
	return false
}

// offerBurst is how many offers of a peer are taken up at once; the pace of others is timing.offerPace.
const offerBurst = 4

func (n *Node) offerRate() pace.Rate {
	return pace.Rate{Burst: offerBurst, Every: n.cfg.timing.offerPace}
}

// inPace reports whether an offer may be taken up now. Each costs a PeerConnection, or an ICE restart, so one that
// comes too soon after others waits, and the last one that waits is taken up when there may be another.
func (n *Node) inPace(sl *slot, o description) bool {
	wait := sl.offers.Take(time.Now(), n.offerRate())
	if wait == 0 {
		return true
	}
	if sl.delayed == nil {
		n.outside.Info(sl.id).Str("peer", sl.id).Msg("many offers; taking up one at a time")
		sl.delay = n.after(sl, wait, func() {
			o := sl.delayed
			sl.delayed = nil
			n.offered(sl.id, *o)
		})
	}
	sl.delayed = &o
	return false
}

// acceptHeld answers a base peer's offer that was held, and gives up our own.
func (n *Node) acceptHeld(sl *slot) {
	o := sl.held
	sl.held = nil
	stopTimer(sl.holding)
	if o != nil && (sl.cur == nil || !sl.cur.described()) {
		n.accept(sl, *o)
	}
}

// accept answers an offer with a new session, in place of the present one. It is only signaling's word that the peer has made
// that offer: it may show an old one again. So a link that is up stays until the other end of the new session has said
// hello, which that of an old one never does. (A base peer says none.)
func (n *Node) accept(sl *slot, o description) {
	if n.closing >= maxClosing || sl.cur == nil && n.attempts() >= maxAttempts {
		n.outside.Warn(sl.id).Str("peer", sl.id).Msg("too many links at a time; offer dropped")
		return
	}
	if !o.identifies() {
		_, err := n.cfg.Identity.Verify(identity.Link{Own: n.self, Other: sl.id}, nil)
		if err == nil && sl.proven() {
			err = errDowngrade
		}
		if err = identityError(err); errors.Is(err, ErrIdentity) {
			n.refuse(sl, err)
			return
		} else if err != nil {
			n.failedHere(sl, err)
			return
		}
	}
	challenge := sl.cur != nil && sl.cur.up && !sl.cur.base() && o.identifies()
	if !challenge {
		n.supersede(sl, o)
		sl.held = nil
		stopTimer(sl.retryTimer)
	}
	s, err := n.newSession(sl, false)
	switch {
	case err != nil:
		n.failedHere(sl, err)
		n.retry(sl)
		return
	case challenge:
		if sl.next != nil {
			n.lostNext(sl, ErrReplaced)
		}
		sl.next = s
	default:
		sl.cur = s
	}
	if err := s.answer(o); err != nil {
		n.lost(s, err)
	}
}

// supersede ends the present session, if any, because of a new offer.
func (n *Node) supersede(sl *slot, o description) {
	old := sl.cur
	if old == nil {
		return
	}
	reason := ErrReplaced
	if old.remote.instance != o.instance {
		reason = ErrRestarted
	}
	if !old.base() || !o.base() {
		n.drop(sl, reason)
		return
	}
	// A base peer would take the end of the old connection for that of the new one.
	sl.cur = nil
	old.abandon(reason)
	n.keepParked(sl, old)
}

// unpark closes a superseded connection that the far end has ended as well: closing it can no longer make the
// peer forget us.
func (n *Node) unpark(s *session) {
	if i := slices.Index(s.sl.parked, s); i >= 0 {
		s.sl.parked = slices.Delete(s.sl.parked, i, i+1)
		n.closeSession(s)
		if !s.parkedAt.IsZero() && s.sl.cur == nil {
			s.sl.notBefore = time.Now().Add(n.cfg.timing.baseClosed)
			n.dial(s.sl)
		}
	}
}

// answered handles an answer. Offers are only those of cur.
func (n *Node) answered(id string, a description) {
	sl := n.slots[id]
	if sl == nil || sl.cur == nil {
		return
	}
	s := sl.cur
	v := judgeAnswer(&s.negotiation, s.unanswered(), a)
	n.outside.Debug(id).Str("peer", id).Str("answers", a.answers).Stringer("verdict", v).Msg("answer")
	switch v {
	case apply:
		n.alive(sl)
		if s.up && !s.signedByPeer(signal.Answer, a) {
			return
		}
		sl.heard(a)
		sl.held = nil
		stopTimer(sl.holding)
		if err := s.applyAnswer(a); err != nil {
			n.lost(s, err)
			return
		}
		switch {
		case !s.up:
			s.beginAgain()
		case !s.recovering:
		case s.iceDead() || s.outdated(): // ICE had given up while the answer was missing, or there are other addresses now
			s.hurry()
		default:
			s.checkedAt = time.Now()
		}
	case unknown:
		if sl.proven() {
			return // the peer's own offer will come, and prove who it is
		}
		sl.heard(a)
		n.lost(s, ErrRestarted)
	}
}

// candidate handles a candidate, which belongs to the present session, or to a description still to come, or is
// stale. The last two cannot be distinguished.
func (n *Node) candidate(id string, c signal.ICECandidate) {
	if n.slots[id] == nil && len(n.slots) >= maxSlots/2 {
		return // a peer that sends only candidates must not keep others out
	}
	if n.ending {
		return
	}
	sl, bad := n.slot(id)
	if bad != nil {
		return // an offer would have the reason logged
	}
	if s := sl.about(c.Session); s != nil && s.owns(c.Session) {
		s.remoteCandidate(c)
		return
	}
	sl.early.add(c)
	n.tidy(sl)
}
