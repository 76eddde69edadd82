package rtc

import (
	"slices"
	"time"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// What a description's caps may list.
const (
	capStream  = "jsonl"   // stream framing
	capRestart = "restart" // ICE restarts, by offers of the same session
)

// description is an offer or answer that was received.
type description struct {
	sdp      string
	session  string // empty from base peers
	instance string
	answers  string // answer: the offer's session
	stream   bool
	restart  bool
}

func newDescription(d signal.Description) description {
	return description{
		sdp: d.SDP, session: d.Session, instance: d.Instance, answers: d.Answers,
		stream:  slices.Contains(d.Caps, capStream),
		restart: slices.Contains(d.Caps, capRestart) && d.Session != "",
	}
}

// base tells whether the sender is a base peer, one that numbers no sessions.
func (d description) base() bool { return d.session == "" }

// link is what is known about one PeerConnection: enough to decide what an offer, answer or candidate
// means for it.
type link struct {
	session  string      // ours
	offerer  bool        // we sent the first offer
	answered bool        // offerer: the first answer has come
	remote   description // the last one applied; the zero value until answered
}

// base tells whether the other end is known to be a base peer.
func (l *link) base() bool { return l.described() && l.remote.base() }

// described tells whether the other end's description is known.
func (l *link) described() bool { return !l.offerer || l.answered }

// verdict is what to do about an offer or answer.
type verdict uint8

const (
	ignore  verdict = iota // it is stale or not allowed
	repeat                 // it was received before: the answer may have been lost, send it again
	insist                 // our own offer counts: send it again
	hold                   // wait, for the answer to our own offer
	accept                 // make a new link, in place of the present one if there is any
	apply                  // it belongs to the present link: an answer, or an ICE restart
	unknown                // the far end does not know the present link any more
)

func (v verdict) String() string {
	return [...]string{"ignore", "repeat", "insist", "hold", "accept", "apply", "unknown"}[v]
}

// judgeOffer decides about an offer from peer to self. l is nil if there is no link.
func judgeOffer(self, peer string, l *link, o description) verdict {
	if l == nil {
		return accept
	}
	if l.offerer && !l.answered { // both have offered
		switch {
		case o.base():
			// It knows no such rule and may be answering ours.
			return hold
		case self < peer:
			return insist
		}
		return accept // instead of ours, which the peer ignores
	}
	if o.session != l.remote.session {
		return accept // the peer was restarted, or gave its link up
	}
	switch {
	case o.sdp == l.remote.sdp:
		if o.base() {
			return ignore
		}
		return repeat
	case o.base():
		return accept
	case l.offerer, !l.remote.restart:
		return ignore // restarts are the first offerer's, so that they never cross
	}
	return apply
}

// judgeAnswer decides about an answer. waiting tells that an offer of ours has not been answered.
func judgeAnswer(l *link, waiting bool, a description) verdict {
	switch {
	case l == nil || !l.offerer || !waiting:
		return ignore
	case !a.base() && a.answers != l.session:
		return ignore // to an offer that we have given up
	case !l.answered:
		return apply
	case a.session != l.remote.session:
		return unknown // a new process got the restart offer and took it for a first one
	case a.sdp == l.remote.sdp:
		return ignore
	}
	return apply
}

// owns tells whether a candidate of the session is for the link.
func (l *link) owns(session string) bool {
	return l != nil && l.described() && l.remote.session == session
}

// earlyCandidate is one that came before the description it belongs to.
type earlyCandidate struct {
	session   string
	candidate signal.ICECandidate
}

// maxEarly bounds the candidates held for one peer. The oldest are dropped: they belong to sessions
// that came to nothing.
const maxEarly = 64

// kind is what is known about a peer's software. It may change when the peer restarts.
type kind uint8

const (
	kindUnknown kind = iota // no offer or answer was seen
	kindBase
	kindExtended
)

// slot is what the node knows of one peer id. Only the node's loop uses it.
type slot struct {
	id     string
	cur    *session   // the link, or the attempt at one
	parked []*session // superseded links to a base peer, which must not end before cur does

	wanted     bool        // try until there is a link
	queued     bool        // for dialling
	connecting bool        // Connect was called and not answered
	connect    *time.Timer // when to answer it

	kind      kind
	failures  int       // attempts since the last link
	silence   int       // attempts since the peer was last heard of
	missed    string    // what the last one that came to nothing waited for
	notBefore time.Time // no offer before
	retry     *time.Timer

	held    *description // base: an offer that came while ours was not answered
	holding *time.Timer

	early []earlyCandidate
	sweep *time.Timer
}

// keep holds a candidate until its description comes.
func (sl *slot) keep(c signal.ICECandidate) {
	if len(sl.early) == maxEarly {
		sl.early = sl.early[1:]
	}
	sl.early = append(sl.early, earlyCandidate{c.Session, c})
}

// takeEarly removes and returns the candidates held for a session.
func (sl *slot) takeEarly(session string) (cs []signal.ICECandidate) {
	var rest []earlyCandidate
	for _, e := range sl.early {
		if e.session == session {
			cs = append(cs, e.candidate)
		} else {
			rest = append(rest, e)
		}
	}
	sl.early = rest
	return cs
}

// missing tells what the attempt waits for, or what the last one did, as the end of a sentence.
func (sl *slot) missing() string {
	what := sl.missed
	if sl.cur != nil {
		what = sl.cur.missing()
	}
	if what != "" {
		what = ": " + what
	}
	return what
}

// heard takes note of a sign of life.
func (sl *slot) heard(d description) {
	sl.silence = 0
	sl.kind = kindExtended
	if d.base() {
		sl.kind = kindBase
	}
}

// linked takes note that there is a link.
func (sl *slot) linked() {
	sl.wanted, sl.connecting = false, false
	sl.failures, sl.silence, sl.missed = 0, 0, ""
	stopTimer(sl.connect)
	stopTimer(sl.retry)
}

// idle tells whether there is nothing to remember about the peer.
func (sl *slot) idle(now time.Time) bool {
	return sl.cur == nil && !sl.wanted && !sl.connecting && sl.held == nil && len(sl.early) == 0 &&
		!sl.notBefore.After(now)
}

// stop stops the timers.
func (sl *slot) stop() {
	for _, t := range []*time.Timer{sl.connect, sl.retry, sl.holding, sl.sweep} {
		if t != nil {
			t.Stop()
		}
	}
}
