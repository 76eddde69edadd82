//go:build !js

package rtc

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pion/webrtc/v4"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/pace"
	"github.com/chatixia-ai/mesh/internal/signal"
)

// session is one PeerConnection, as the node's loop sees it. Only the loop uses it.
type session struct {
	negotiation
	self string // our own id, as it was when the session began
	n    *Node
	sl   *slot
	pc   *webrtc.PeerConnection
	path atomic.Pointer[webrtc.ICETransport] // of pc, for other goroutines; nil once the link goes on without it
	cert [sha256.Size]byte                   // hash of our certificate

	checks   checks
	failures *failures
	sources  *sources
	twice    *doubler
	haste    *haste
	retry    bool // after an offer that led to no link: without what saves round trips, which may be why

	// The last description of ours and its candidates, and how much of that signaling has taken.
	descType   string
	desc       signal.Description
	descSent   bool
	descAt     time.Time // it was sent
	local      []signal.ICECandidate
	localSent  int
	sendErr    error // why signaling did not take the next one
	remoteSeen int   // the peer's candidates since and in its last description
	number     int   // of our last restart offer, or of the peer's

	fingerprint string       // of the peer's certificate, as its first description says
	channels    atomic.Int32 // data channels, ours and the peer's

	peer   *Peer // once there is a data channel
	onHost onHost
	up     bool // PeerConnected was called
	upAt   time.Time
	ice    webrtc.ICEConnectionState

	toldPath     [3]string    // that Events knows: kind and both ends
	recovering   bool         // the link is interrupted
	parkedAt     time.Time    // base: the link ended, and nothing has been heard since; else zero
	cutAt        time.Time    // since
	outages      atomic.Int32 // that the link has survived
	heardAt      time.Time    // what came last before that
	acknowledged uint64       // bytes of ours, until then
	cutOffAt     time.Time    // this host may have been cut off then, so that the silence of a peer that has left proves nothing
	leftAt       time.Time    // signaling has said that the process has ended then; zero if not, or if there was a sign of life
	extended     bool         // past the bound, because of a sign of life
	doubtful     bool         // though ICE has a path
	repairs      int          // steps since the last sign of life
	due          bool         // one waits for signaling
	moves        pace.Bucket  // restarts for other addresses of this host
	stale        bool         // this end, or the other one before the link was up, has an address that is not in its last description
	checkedAt    time.Time    // the last restart had its answer; zero if another one is wanted

	credentials time.Time   // when those of the relays that were asked for last expire; zero: never
	renewable   bool        // it is time for new ones
	renewal     *time.Timer // when it is

	onClosed func() // called in the loop when the connection is closed

	began     time.Time
	deadline  *time.Timer // of the attempt, or of the recovery
	repairing *time.Timer
	judging   *time.Timer // until it is decided whether the peer is dead
	doubting  *time.Timer // while the path is tested

	arrivals  arrivals
	responses sighting // base: to our checks
	progress  progress
	resend    *time.Timer
}

// debug begins a line of the log. A logger that knows the session would take memory for as long as the link lives.
func (s *session) debug() *zerolog.Event {
	return s.n.log.Debug().Str("peer", s.sl.id).Str("session", s.session)
}

// newSession makes a session and its PeerConnection. What pion reports of it counts only while the slot has it.
func (n *Node) newSession(sl *slot, offerer bool) (*session, error) {
	f, from, twice, early := &failures{}, &sources{}, &doubler{}, &haste{}
	cert, err := n.api.certs.get()
	if err != nil {
		return nil, localErrorf("%w", err)
	}
	often := n.cfg.timing.iceBase
	if sl.steady {
		often = n.cfg.timing.ice
	}
	pc, err := n.api.connection(cert, f, from, twice, early, often)
	if err != nil {
		return nil, localErrorf("make a PeerConnection: %w", err)
	}
	s := &session{
		self: n.self, n: n, sl: sl, pc: pc, cert: cert.hash, checks: often, failures: f, sources: from, twice: twice, haste: early, began: time.Now(),
		negotiation: negotiation{session: randomID(), offerer: offerer},
	}
	s.path.Store(pc.SCTP().Transport().ICETransport())
	f.transport = func() { s.post(s.transportFailed) }
	pc.OnICECandidate(func(c *webrtc.ICECandidate) {
		if c == nil {
			s.post(s.gathered)
			return
		}
		init := c.ToJSON()
		s.post(func() { s.localCandidate(init) })
	})
	pc.OnICEConnectionStateChange(func(state webrtc.ICEConnectionState) {
		s.post(func() { s.iceChanged(state) })
	})
	pc.SCTP().Transport().ICETransport().OnSelectedCandidatePairChange(func(*webrtc.ICECandidatePair) { s.post(s.pathChanged) })
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
	s.planRenewal()
	pc.SCTP().OnClose(func(error) { s.post(s.transportGone) })
	pc.OnDataChannel(s.theirChannel)
	s.setDeadline(n.cfg.ConnectTimeout, func() {
		n.lost(s, fmt.Errorf("%w: no link within %s", ErrUnreachable, n.cfg.ConnectTimeout))
	})
	return s, nil
}

// missing returns what a link that is not up lacks.
func (s *session) missing() string {
	state := s.pc.ICEConnectionState()
	connected := state == webrtc.ICEConnectionStateConnected || state == webrtc.ICEConnectionStateCompleted
	switch {
	case !connected && !s.descSent:
		return "signaling has not taken our " + s.descType + s.unsentReason()
	case !s.described():
		return "the peer has not answered"
	case !connected:
		return s.withoutPath()
	case s.peer == nil:
		return "ICE is connected, but there is no data channel"
	case !s.remote.stream:
		return "the peer has not acknowledged the data channel"
	}
	if n := s.peer.dc.BufferedAmount(); n > 0 {
		return fmt.Sprintf("the peer has not said hello, and has not acknowledged %d bytes of ours", n)
	}
	return "the peer has not said hello, but has acknowledged ours"
}

// unsentReason returns why signaling has not taken the last description, as the end of a sentence.
func (s *session) unsentReason() string {
	switch {
	case !s.n.online:
		return ": it is not connected"
	case s.sendErr != nil:
		return ": " + s.sendErr.Error()
	}
	return ""
}

// withoutPath returns why ICE may have found no path.
func (s *session) withoutPath() string {
	why := "ICE is " + s.pc.ICEConnectionState().String()
	if len(s.local) == 0 {
		why += "; this host has no candidates" + s.failures.suffix(socketFailure)
	}
	if s.remoteSeen == 0 && !strings.Contains(s.remote.sdp, "a=candidate:") {
		why += "; the peer has sent no candidates"
	}
	return why + s.failures.suffix(serverFailure)
}

// post runs f in the loop if the slot has the session then.
func (s *session) post(f func()) {
	s.n.box.post(func() {
		if s.sl.has(s) {
			f()
		}
	})
}

// after runs f in the loop after d if the slot has the session then.
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
	stopTimer(s.repairing)
	stopTimer(s.doubting)
	stopTimer(s.judging)
	stopTimer(s.resend)
	stopTimer(s.renewal)
	s.deadline = nil
}

func stopTimer(t *time.Timer) {
	if t != nil {
		t.Stop()
	}
}
