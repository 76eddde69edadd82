//go:build !js

package rtc

import (
	"slices"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// The capabilities that a description may list.
const (
	capStream  = "jsonl"   // stream framing
	capRestart = "restart" // ICE restarts, by offers of the same session
	capDrain   = "drain"   // the control lines drain and drained, in stream framing
	capStreams = "streams" // streams of bytes beside the messages, in stream framing
)

// description is an offer or answer received from a peer.
type description struct {
	sdp      string
	session  string // empty from base peers
	instance string
	answers  string // in an answer: the offer's session
	number   int    // of an ICE restart; 0 in the first descriptions
	sig      string // the sender's, of a description with a number
	sctpInit string // the sender's SCTP INIT, in base64; empty if it goes through SCTP's handshake
	stream   bool
	restart  bool
	drain    bool
	streams  bool
}

func newDescription(d signal.Description) description {
	lists := func(c string) bool { return slices.Contains(d.Caps, c) }
	return description{
		sdp: d.SDP, session: d.Session, instance: d.Instance, answers: d.Answers, number: d.Number, sig: d.Sig,
		sctpInit: d.SCTPInit,
		stream:   lists(capStream),
		restart:  lists(capRestart) && d.Session != "",
		drain:    lists(capDrain) && lists(capStream),
		streams:  lists(capStreams) && lists(capStream),
	}
}

// caps returns what an answer to the offer lists: of ours, those that the offer lists.
func (d description) caps() (list []string) {
	if d.stream {
		list = append(list, capStream)
	}
	if d.restart {
		list = append(list, capRestart)
	}
	if d.drain {
		list = append(list, capDrain)
	}
	if d.streams {
		list = append(list, capStreams)
	}
	return list
}

// identifies reports whether a link with this description can carry an identity.
func (d description) identifies() bool { return d.stream && d.session != "" }

// base reports whether the sender is a base peer, which does not number its sessions.
func (d description) base() bool { return d.session == "" }

// negotiation is what offers and answers have said so far about one session: enough to decide what another
// offer, answer or candidate means for it.
type negotiation struct {
	session  string      // our id of the session
	offerer  bool        // we sent the first offer
	answered bool        // offerer: the first answer has come
	remote   description // the last one applied; the zero value until described
}

// base reports whether the peer is known to be a base peer.
func (neg *negotiation) base() bool { return neg.described() && neg.remote.base() }

// stale reports whether a description of the present session is of an earlier restart than the last one applied. Peers that
// do not number their restarts have 0 in all of them.
func (neg *negotiation) stale(d description) bool {
	last := neg.remote.number
	return d.number < last || d.number == last && last > 0
}

// described reports whether the peer's description is known.
func (neg *negotiation) described() bool { return !neg.offerer || neg.answered }

// owns reports whether a candidate of the peer's session belongs to this one.
func (neg *negotiation) owns(session string) bool {
	return neg != nil && neg.described() && neg.remote.session == session
}

// verdict is what to do about an offer or answer.
type verdict uint8

const (
	ignore  verdict = iota // it is stale or not allowed
	repeat                 // it was received before: the answer may have been lost, send it again
	insist                 // our own offer counts: send it again
	hold                   // keep it until our own offer is answered
	accept                 // make a new session, in place of the present one if there is any
	apply                  // it belongs to the present session: an answer, or an ICE restart
	unknown                // the peer no longer knows the present session
)

func (v verdict) String() string {
	return [...]string{"ignore", "repeat", "insist", "hold", "accept", "apply", "unknown"}[v]
}

// judgeOffer decides about an offer from peer to self. neg is nil if there is no session.
func judgeOffer(self, peer string, neg *negotiation, o description) verdict {
	if neg == nil {
		return accept
	}
	if neg.offerer && !neg.answered { // both have offered
		switch {
		case o.base():
			// It knows no such rule and may be answering ours.
			return hold
		case self < peer:
			return insist
		}
		return accept // instead of ours, which the peer ignores
	}
	if o.session != neg.remote.session {
		return accept // the peer was restarted, or gave its session up
	}
	switch {
	case o.sdp == neg.remote.sdp:
		if o.base() {
			return ignore
		}
		return repeat
	case o.base():
		return accept
	case neg.offerer, !neg.remote.restart:
		return ignore // only the first offerer restarts ICE, so that restarts never cross
	case neg.stale(o):
		return ignore
	}
	return apply
}

// judgeAnswer decides about an answer. pending says that an offer of ours has no answer yet.
func judgeAnswer(neg *negotiation, pending bool, a description) verdict {
	switch {
	case neg == nil || !neg.offerer || !pending:
		return ignore
	case !a.base() && a.answers != neg.session:
		return ignore // to an offer that we have given up
	case !neg.answered:
		return apply
	case a.session != neg.remote.session:
		return unknown // a new process took the restart offer for a first one
	case a.sdp == neg.remote.sdp, neg.stale(a):
		return ignore
	}
	return apply
}
