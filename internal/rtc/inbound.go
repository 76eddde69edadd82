//go:build !js

package rtc

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// Receive handles a message that signaling relayed, or an error of the server.
func (n *Node) Receive(m signal.Message) {
	work, err := n.decode(m)
	switch {
	case err != nil:
		n.outside.Warn().Err(err).Str("type", m.Type).Str("from", m.PeerID).Msg("signaling message dropped")
	case work != nil && !n.box.postUpTo(maxMail, work):
		n.outside.Warn().Str("type", m.Type).Str("from", m.PeerID).Msg("too many signaling messages queued; one dropped")
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
		if err := json.Unmarshal(m.Payload, &d); err != nil {
			return nil, fmt.Errorf("payload: %w", err)
		}
		if err := checkIDs(d.Session, d.Instance, d.Answers); err != nil {
			return nil, err
		}
		if m.Type == signal.Offer {
			return func() { n.offered(m.PeerID, newDescription(d)) }, nil
		}
		return func() { n.answered(m.PeerID, newDescription(d)) }, nil
	case signal.Candidate:
		var c signal.ICECandidate
		if err := json.Unmarshal(m.Payload, &c); err != nil {
			return nil, fmt.Errorf("payload: %w", err)
		}
		if err := checkIDs(c.Session, c.Instance); err != nil {
			return nil, err
		}
		return func() { n.candidate(m.PeerID, c) }, nil
	case signal.ErrorType:
		var e signal.ErrorPayload
		if err := json.Unmarshal(m.Payload, &e); err != nil {
			return nil, fmt.Errorf("payload: %w", err)
		}
		return func() { n.serverError(e) }, nil
	}
	return nil, nil
}

func checkIDs(ids ...string) error {
	for _, id := range ids {
		if len(id) > maxIDLength {
			return fmt.Errorf("session or instance of %d bytes, the limit is %d", len(id), maxIDLength)
		}
	}
	return nil
}

// The methods of Node below run in the loop.

// offered handles an offer.
func (n *Node) offered(id string, o description) {
	if n.ending || !n.online {
		return
	}
	sl, bad := n.slot(id)
	if bad != nil {
		n.outside.Warn().Str("peer", id).Str("reason", bad.Text).Msg("offer dropped")
		return
	}
	defer n.tidy(sl)
	sl.heard(o)
	var neg *negotiation
	if sl.cur != nil {
		neg = &sl.cur.negotiation
	}
	v := judgeOffer(n.self, id, neg, o)
	n.log.Debug().Str("peer", id).Str("session", o.session).Stringer("verdict", v).Msg("offer")
	switch v {
	case repeat:
		if sl.cur.descType == signal.Answer {
			sl.cur.sendDescription()
		}
	case insist:
		sl.cur.sendDescription()
	case hold:
		sl.held = &o
		stopTimer(sl.holding)
		sl.holding = n.after(sl, n.cfg.timing.glareHold, func() { n.acceptHeld(sl) })
	case accept:
		n.accept(sl, o)
	case apply:
		if err := sl.cur.answer(o); err != nil {
			n.lost(sl.cur, err)
		} else if sl.cur.up {
			sl.cur.interrupted()
		}
	}
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

// accept answers an offer with a new session, in place of the present one.
func (n *Node) accept(sl *slot, o description) {
	if n.closing >= maxClosing || sl.cur == nil && n.attempts() >= maxAttempts {
		n.outside.Warn().Str("peer", sl.id).Msg("too many links at a time; offer dropped")
		return
	}
	n.supersede(sl, o)
	sl.held = nil
	stopTimer(sl.retryTimer)
	s, err := n.newSession(sl, false)
	if err != nil {
		n.failedHere(sl, err)
		n.retry(sl)
		return
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
	sl.parked = append(sl.parked, old)
	if len(sl.parked) > maxParked {
		n.closeSession(sl.parked[0])
		sl.parked = sl.parked[1:]
	}
}

// unpark closes a superseded connection that the far end has ended as well: closing it can no longer make the
// peer forget us.
func (n *Node) unpark(s *session) {
	if i := slices.Index(s.sl.parked, s); i >= 0 {
		s.sl.parked = slices.Delete(s.sl.parked, i, i+1)
		n.closeSession(s)
	}
}

// answered handles an answer.
func (n *Node) answered(id string, a description) {
	sl := n.slots[id]
	if sl == nil || sl.cur == nil {
		return
	}
	s := sl.cur
	v := judgeAnswer(&s.negotiation, s.unanswered(), a)
	s.log.Debug().Str("answers", a.answers).Stringer("verdict", v).Msg("answer")
	switch v {
	case apply:
		sl.heard(a)
		sl.held = nil
		stopTimer(sl.holding)
		if err := s.applyAnswer(a); err != nil {
			n.lost(s, err)
			return
		}
		if s.recovering && s.iceDead() {
			s.restartICE() // ICE had given up while the answer was missing
		}
	case unknown:
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
	if sl.cur != nil && sl.cur.owns(c.Session) {
		sl.cur.remoteCandidate(c)
		return
	}
	sl.early.add(c)
	n.tidy(sl)
}
