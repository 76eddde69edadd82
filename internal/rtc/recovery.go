//go:build !js

package rtc

import (
	"errors"
	"fmt"
	"time"

	"github.com/pion/webrtc/v4"

	"github.com/chatixia-ai/mesh/internal/backoff"
)

var errNotRestartable = errors.New("it does not support ICE restarts")

// iceChanged handles a change of ICE's state. A link survives the loss of its path: SCTP keeps what is not
// acknowledged, and goes on after an ICE restart as if nothing had happened.
func (s *session) iceChanged(state webrtc.ICEConnectionState) {
	s.log.Debug().Stringer("ice", state).Msg("ICE state")
	s.ice = state
	switch state {
	case webrtc.ICEConnectionStateConnected, webrtc.ICEConnectionStateCompleted:
		s.restored()
	case webrtc.ICEConnectionStateChecking:
		if s.up { // a restart, of ours or the peer's
			s.interrupted()
		}
	case webrtc.ICEConnectionStateDisconnected, webrtc.ICEConnectionStateFailed:
		switch {
		case !s.up && state == webrtc.ICEConnectionStateFailed:
			s.transportFailed()
		case !s.up:
		case !s.remote.restart:
			s.n.lost(s, fmt.Errorf("%w: %w", ErrUnreachable, errNotRestartable))
		default:
			s.interrupted()
		}
	}
}

// iceDead reports whether ICE has given its candidates up, so that only a restart can help.
func (s *session) iceDead() bool { return s.ice == webrtc.ICEConnectionStateFailed }

// interrupted begins to repair the link, or leaves that to the other end, within a deadline.
func (s *session) interrupted() {
	if s.recovering {
		return
	}
	s.recovering = true
	s.cutAt = time.Now()
	s.restarts = 0
	s.n.outside.Info(s.sl.id).Str("peer", s.sl.id).Msg("link interrupted")
	s.setDeadline(s.n.cfg.RecoveryTimeout, func() {
		s.n.lost(s, fmt.Errorf("%w: interrupted for %s: %s", ErrUnreachable, s.n.cfg.RecoveryTimeout, s.withoutPath()))
	})
	s.planRestart()
}

// restored ends what interrupted began.
func (s *session) restored() {
	if !s.recovering {
		return
	}
	s.recovering = false
	s.n.outside.Info(s.sl.id).Str("peer", s.sl.id).Dur("after", time.Since(s.cutAt)).Msg("link restored")
	stopTimer(s.restart)
	stopTimer(s.deadline)
	s.deadline = nil
	if s.peer != nil {
		s.peer.budget.newPath()
	}
}

// planRestart schedules the next ICE restart. Only the first offerer restarts, so that restarts never cross.
func (s *session) planRestart() {
	if !s.offerer {
		return
	}
	stopTimer(s.restart)
	t := s.n.cfg.timing
	s.restart = s.after(backoff.Delay(t.restartMin, t.restartMax, s.restarts), s.restartICE)
	s.restarts++
}

func (s *session) restartICE() {
	if !s.recovering || !s.offerer || !s.n.online {
		return // registered comes back to it
	}
	s.planRestart()
	if s.unanswered() {
		// pion cannot take an offer back, so the peer has to answer this one before there can be another.
		s.sendDescription()
		return
	}
	s.log.Debug().Int("attempt", s.restarts).Msg("ICE restart")
	s.number++
	if err := s.pc.SetConfiguration(s.n.api.configuration()); err != nil {
		s.n.outside.Warn(s.sl.id).Err(err).Str("peer", s.sl.id).Msg("ICE servers not refreshed")
	}
	if err := s.sendOffer(&webrtc.OfferOptions{ICERestart: true}); err != nil {
		s.n.lost(s, fmt.Errorf("%w: %w", ErrUnreachable, err))
	}
}
