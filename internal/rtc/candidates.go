//go:build !js

package rtc

import (
	"fmt"

	"github.com/pion/webrtc/v4"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// maxLocalCandidates and maxRemoteCandidates bound the candidates of one ICE generation. A host has one for
// each of its addresses and each ICE server.
const (
	maxLocalCandidates  = 128
	maxRemoteCandidates = 128
	// maxCandidate bounds one of the peer's, in bytes. They are about 100 long.
	maxCandidate = 512
)

func (s *session) localCandidate(c webrtc.ICECandidateInit) {
	if len(s.local) >= maxLocalCandidates {
		return
	}
	s.local = append(s.local, signal.ICECandidate{
		Candidate: c.Candidate, SDPMid: c.SDPMid, SDPMLineIndex: c.SDPMLineIndex,
		Session: s.session, Instance: s.n.cfg.Instance,
	})
	if s.descSent {
		s.sendPending()
	}
}

// gathered handles the end of gathering. If it failed for want of sockets, there is no point in waiting for the
// peer. After a restart nothing follows from it: what it is about may be the gathering before.
func (s *session) gathered() {
	if s.number > 0 {
		return
	}
	if why := s.failures.suffix(socketFailure); !s.up && len(s.local) == 0 && why != "" {
		s.n.lost(s, localErrorf("this host has no candidates%s", why))
	}
}

// sawCandidates counts further candidates of the peer's, and reports whether all of them are within the limit.
func (s *session) sawCandidates(n int) bool {
	within := s.remoteSeen <= maxRemoteCandidates
	s.remoteSeen += n
	if s.remoteSeen <= maxRemoteCandidates {
		return true
	}
	if within {
		s.n.outside.Warn(s.sl.id).Str("peer", s.sl.id).Int("limit", maxRemoteCandidates).Msg("too many candidates; dropping the rest")
	}
	return false
}

func (s *session) remoteCandidate(c signal.ICECandidate) {
	if !s.sawCandidates(1) {
		return
	}
	err := s.pc.AddICECandidate(webrtc.ICECandidateInit{
		Candidate: c.Candidate, SDPMid: c.SDPMid, SDPMLineIndex: c.SDPMLineIndex,
	})
	if err != nil {
		s.n.outside.Warn(s.sl.id).Err(err).Str("peer", s.sl.id).Str("candidate", fmt.Sprintf("%.200s", redact(c.Candidate))).Msg("candidate dropped")
	}
}

func (s *session) addEarly() {
	for _, c := range s.sl.early.take(s.remote.session) {
		s.remoteCandidate(c)
	}
}
