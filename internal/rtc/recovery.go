//go:build !js

package rtc

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/pion/webrtc/v4"

	"github.com/chatixia-ai/mesh/internal/backoff"
	"github.com/chatixia-ai/mesh/internal/hostaddr"
	"github.com/chatixia-ai/mesh/internal/pace"
	"github.com/chatixia-ai/mesh/internal/signal"
)

var errNotRestartable = errors.New("it does not support ICE restarts")

// iceChanged handles a change of ICE's state. A link survives the loss of its path: SCTP keeps what is not
// acknowledged, and goes on after an ICE restart as if nothing had happened.
func (s *session) iceChanged(state webrtc.ICEConnectionState) {
	s.debug().Stringer("ice", state).Msg("ICE state")
	s.ice = state
	if s.onHost.moved.Load() {
		return
	}
	switch state {
	case webrtc.ICEConnectionStateConnected, webrtc.ICEConnectionStateCompleted:
		if !s.doubtful { // watchPath decides
			s.restored()
		}
	case webrtc.ICEConnectionStateChecking:
		if s.up { // a restart, of ours or the peer's
			s.interrupted()
		}
	case webrtc.ICEConnectionStateDisconnected, webrtc.ICEConnectionStateFailed:
		switch {
		case !s.up && state == webrtc.ICEConnectionStateFailed:
			s.transportFailed()
		case !s.up:
		case s.base():
			s.n.park(s)
		case !s.remote.restart:
			s.n.lost(s, fmt.Errorf("%w: %w", ErrUnreachable, errNotRestartable))
		default:
			s.interrupted()
		}
	}
}

// iceDead reports whether ICE has given its candidates up, so that only a restart can help.
func (s *session) iceDead() bool { return s.ice == webrtc.ICEConnectionStateFailed }

// interrupted begins to repair the link, within a deadline.
func (s *session) interrupted() {
	if s.recovering {
		return
	}
	s.recovering = true
	s.cutAt = time.Now()
	_, s.acknowledged = s.peer.transit.count()
	s.heardAt = s.lastHeard() // a restart makes ICE forget it
	s.extended = false
	s.repairs = 0
	s.n.outside.Info(s.sl.id).Str("peer", s.sl.id).Msg("link interrupted")
	s.setDeadline(s.n.cfg.RecoveryTimeout, s.giveUp)
	s.planRepair()
	s.n.probe()
}

// restored ends what interrupted began.
func (s *session) restored() {
	if !s.recovering {
		return
	}
	s.outages.Add(1)
	s.recovering, s.doubtful = false, false
	s.n.outside.Info(s.sl.id).Str("peer", s.sl.id).Dur("after", time.Since(s.cutAt)).Msg("link restored")
	stopTimer(s.repairing)
	stopTimer(s.deadline)
	s.deadline = nil
	if s.peer != nil {
		s.peer.budget.newPath()
	}
	s.renew() // the restart may have been with credentials that are to be renewed
}

// giveUp ends a link that was interrupted for too long. If there was a sign of life a moment ago, the path may be back:
// then the link has some seconds more, once.
func (s *session) giveUp() {
	t := s.n.cfg.timing
	if !s.extended && (s.checking() || time.Since(s.n.registeredAt) < t.checking) {
		s.extended = true
		s.setDeadline(t.checking, s.giveUp)
		return
	}
	s.sl.hurryUntil = time.Now().Add(t.hurry)
	s.n.lost(s, fmt.Errorf("%w: interrupted for %s: %s", ErrUnreachable, time.Since(s.cutAt).Round(time.Second), s.withoutPath()))
}

// checking reports whether both ends have exchanged descriptions for a restart a short while ago. ICE looks for a path then,
// five times a second, so that another restart would only interrupt it.
func (s *session) checking() bool {
	return !s.iceDead() && !s.checkedAt.IsZero() && time.Since(s.checkedAt) < s.n.cfg.timing.checking
}

// planRepair schedules the next step of the repair. The answerer leaves the first to the other end.
func (s *session) planRepair() {
	stopTimer(s.repairing)
	t := s.n.cfg.timing
	step := s.repairs
	if !s.offerer {
		step++
	}
	s.repairing = s.after(backoff.Delay(t.repairMin, t.repairMax, step), s.repair)
	s.repairs++
}

// repair takes the next step to a path, if signaling works. Only the first offerer restarts ICE, so that restarts never
// cross; the other end asks for it.
func (s *session) repair() {
	if !s.recovering {
		return
	}
	s.planRepair()
	s.due = !s.n.signaling()
	switch {
	case s.due: // signalingResponded comes back to it
	case s.offerer && s.unanswered():
		// pion cannot take an offer back, so the peer has to answer this one before there can be another.
		s.sendDescription()
	case s.checking() && !s.outdated():
	case s.offerer:
		s.restartICE()
	default:
		s.askForRestart()
	}
}

// hurry takes the next step of the repair now, after a sign of life.
func (s *session) hurry() {
	s.checkedAt = time.Time{}
	s.repairs = 0
	s.repair()
}

func (s *session) restartICE() {
	s.debug().Int("number", s.number+1).Msg("ICE restart")
	s.number++
	s.stale = false
	s.refreshServers()
	if err := s.sendOffer(&webrtc.OfferOptions{ICERestart: true}); err != nil {
		s.n.lost(s, fmt.Errorf("%w: %w", ErrUnreachable, err))
	}
}

// askForRestart sends our last answer again, with a mark that older peers ignore, as they do the answer.
func (s *session) askForRestart() {
	s.stale = false
	ask := s.desc
	ask.Restart = true
	if err := s.relay(signal.Answer, ask); err != nil {
		s.debug().Err(err).Msg("restart not asked for")
	}
}

// outdated reports whether what the two are checking is to be given up for addresses that have come since.
func (s *session) outdated() bool { return s.stale && s.moves.Take(time.Now(), moveRate) == 0 }

// beginAgain has an attempt look for a path anew, since one end has other addresses now. An offer that is not answered yet has to be
// answered first.
func (s *session) beginAgain() {
	switch {
	case !s.remote.restart || s.offerer && s.unanswered() || !s.outdated():
	case s.offerer:
		s.restartICE()
	default:
		s.askForRestart()
	}
}

// asked handles the other end's wish for a restart. It is not signed: it has an effect only on a link that has no path at
// this end, either, or turns out to have none.
func (s *session) asked() {
	switch {
	case s.onHost.moved.Load():
	case !s.up:
		s.stale = true
		s.beginAgain()
	case !s.recovering:
		s.doubt()
	case s.unanswered():
		s.repeatDescription()
	case time.Since(s.descAt) >= s.n.cfg.timing.repairMin:
		s.hurry()
	}
}

// The methods of Node below run in the loop.

// asked handles a peer's wish for a restart of a link, which it may be alone in having.
func (n *Node) asked(id string, a description) {
	sl, bad := n.slot(id)
	if n.ending || !n.online || bad != nil {
		return
	}
	defer n.tidy(sl)
	n.alive(sl)
	s := sl.cur
	switch {
	case s != nil && s.session == a.answers && s.owns(a.session):
		s.asked()
	case s != nil && s.unanswered() && !s.up: // it has forgotten the offer, or never had it
		s.repeatDescription()
	case s == nil && sl.offers.Take(time.Now(), n.offerRate()) == 0:
		sl.wanted, sl.silence = true, 0
		n.dial(sl)
	}
}

// signaling reports whether signaling works, as far as is known: while a link is interrupted, its connection may be dead.
func (n *Node) signaling() bool {
	return n.online && time.Since(n.heardAt) < 3*n.cfg.timing.probe/2
}

// probe has signaling tested, and again and again while a link is interrupted or was given up a short while ago.
func (n *Node) probe() {
	if n.probing != nil {
		return
	}
	n.sig.Probe(func() { n.box.post(n.signalingResponded) })
	n.probing = time.AfterFunc(n.cfg.timing.probe, func() {
		n.box.post(func() {
			n.probing = nil
			if n.hurries() {
				n.probe()
			}
		})
	})
}

// hurries reports whether a link needs signaling now.
func (n *Node) hurries() bool {
	for _, sl := range n.slots {
		if sl.cur != nil && sl.cur.recovering || sl.hurries() {
			return true
		}
	}
	return false
}

// signalingResponded takes the steps that have waited for signaling.
func (n *Node) signalingResponded() {
	n.heardAt = time.Now()
	for _, sl := range n.slots {
		if s := sl.cur; s != nil && s.recovering && s.due {
			s.repair()
		}
	}
}

// moveRate is how often a repair begins anew because this host has other addresses. A check takes some seconds; where
// interfaces come and go all the time, as on a host of containers, it would never be left to its end.
var moveRate = pace.Rate{Burst: 3, Every: 5 * time.Second}

// catchUp handles a change of this host's addresses that came before they were watched; addrs are those of now. A change of routes alone is
// missed. It matters to links that are up, and by then hardly any is.
func (n *Node) catchUp(addrs []hostaddr.Addr) {
	if !slices.Equal(reach(addrs), n.addrs) {
		n.networkChanged()
	}
}

// networkChanged handles a change of this host's addresses, which a shared UDP port follows by now. Signaling may have lost
// its connection by that, and links their path.
func (n *Node) networkChanged() {
	n.probe()
	addrs, _, err := n.api.net.addrs()
	if err != nil {
		n.log.Warn().Err(err).Msg("cannot list this host's addresses")
		return
	}
	now := reach(addrs)
	came := slices.ContainsFunc(now, func(a netip.Addr) bool { return !slices.Contains(n.addrs, a) })
	n.addrs = now
	for _, sl := range n.slots {
		switch s := sl.cur; {
		case s == nil:
			n.dial(sl)
		case s.onHost.moved.Load():
		case came && !s.up:
			s.stale = true
			s.beginAgain()
		case came && s.recovering:
			if s.stale = true; s.outdated() {
				s.hurry()
			}
		case s.recovering:
		case s.up && s.remote.restart && s.pathGone(addrs):
			s.interruptedInDoubt()
			s.hurry()
		}
	}
}

// reach returns the addresses, in order, at which other hosts may reach this one, as far as an address tells: without those that
// mean something only on this host or on one of its links, which come with each interface.
func reach(addrs []hostaddr.Addr) (all []netip.Addr) {
	for _, a := range addrs {
		if !a.IP.IsLoopback() && !a.IP.IsLinkLocalUnicast() {
			all = append(all, a.IP)
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all
}
