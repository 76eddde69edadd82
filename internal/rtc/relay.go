//go:build !js

package rtc

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"time"

	"github.com/pion/webrtc/v4"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// Part of their lifetime after which a relayed link is restarted with new credentials: from renewFrom on, spread over
// renewSpread, so that the links of an agent, whose credentials expire together, do not restart together. signal asks
// for new ones after three quarters.
const renewFrom, renewSpread = 0.8, 0.1

// expiry returns when the first credentials of the present servers expire, the zero time if none do. Those that have
// expired by now do not count.
func (a *api) expiry(now time.Time) (first time.Time) {
	for _, s := range a.servers {
		if t := signal.TURNExpiry(s.Username); t.After(now) && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// refreshServers has the next gathering of candidates ask the present ICE servers. pion reads them without a lock while it
// gathers, so they are not changed then, and never without need.
func (s *session) refreshServers() {
	same := slices.EqualFunc(s.pc.GetConfiguration().ICEServers, s.n.api.servers, func(a, b webrtc.ICEServer) bool { return reflect.DeepEqual(a, b) })
	if same || s.pc.ICEGatheringState() == webrtc.ICEGatheringStateGathering {
		return
	}
	if err := s.pc.SetConfiguration(s.n.api.configuration()); err != nil {
		s.n.outside.Warn(s.sl.id).Err(err).Str("peer", s.sl.id).Msg("ICE servers not refreshed")
	}
	s.planRenewal()
}

// planRenewal has the link restarted before the credentials of the relays that are being asked for now expire.
func (s *session) planRenewal() {
	now := time.Now()
	s.credentials = s.n.api.expiry(now)
	stopTimer(s.renewal)
	if !s.credentials.IsZero() {
		part := renewFrom + renewSpread*rand.Float64()
		s.renewal = s.after(max(time.Duration(part*float64(s.credentials.Sub(now))), s.n.cfg.timing.renewMin), func() {
			s.renewable = true
			s.renew()
		})
	}
	s.renewable = false
}

// renew restarts ICE if the time for it has come, the link is relayed, and there are servers with credentials that
// expire later. If there are none yet, Node.ICEServers comes back to it.
func (s *session) renew() {
	switch {
	case !s.renewable || !s.up || s.onHost.moved.Load() || s.recovering || !s.offerer || !s.remote.restart || !s.relayed():
	case !s.n.api.expiry(time.Now()).After(s.credentials):
	case !s.n.signaling(): // the restart would not arrive, and the link works
		s.n.probe()
		s.renewal = s.after(s.n.cfg.timing.probe, s.renew)
	default:
		s.debug().Msg("TURN credentials expire soon; restarting ICE with new ones")
		s.interrupted()
		s.repair()
	}
}

// relayed reports whether what the link sends passes a relay of this or the other side, whose credentials are of about
// the same age.
func (s *session) relayed() bool {
	pair, err := s.pc.SCTP().Transport().ICETransport().GetSelectedCandidatePair()
	return err == nil && pair != nil && passesRelay(pair)
}
