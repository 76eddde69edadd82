//go:build !js

package rtc

import (
	"sync/atomic"

	"github.com/pion/ice/v4"
	"github.com/pion/stun/v4"
)

// A haste has ICE use a path before it is nominated, which would take a round trip more. The offerer takes the first pair that is valid
// in both directions: its own check was answered there, and one of the answerer's has come (data may be sent on any valid pair, RFC 8445,
// 12.1.1). The answerer takes the pair of the first check that arrives. That is a guess, since nothing is known of the way back. If no
// check of its own is answered there, it takes the first pair on which one is, or the one that the offerer nominates: pion ignores the
// nomination of a pair of lower priority than that of the guess. Without a nomination only paths without a relay count: where there is a
// NAT in between, the first one that works need not be the best.
//
// The two ends may come to use different pairs. pion counts what arrives on either.
//
// Both ends have to know how, since the offerer does not repeat its nomination: who shows an SCTP INIT does. There is one try. An offer
// after one that led to no link shows none, and restarts go by nomination.
type haste struct {
	allowed atomic.Bool
	// What follows is for pion's agent only.
	taken     *ice.CandidatePair
	nominated *ice.CandidatePair // by the offerer, last
}

// takes reports whether ICE is to use the pair of a check that has arrived.
func (h *haste) takes(m *stun.Message, local, remote ice.Candidate, pair *ice.CandidatePair) bool {
	if !h.allowed.Load() {
		return false
	}
	if m.Contains(stun.AttrUseCandidate) {
		h.nominated = pair
	}
	direct := local.Type() == ice.CandidateTypeHost &&
		(remote.Type() == ice.CandidateTypeHost || remote.Type() == ice.CandidateTypePeerReflexive)
	answered := pair.ResponsesReceived() > 0
	guess := h.taken == nil && m.Contains(stun.AttrICEControlling) // which is the offerer's word
	switch {
	case h.taken != nil && h.taken.ResponsesReceived() > 0:
		return false
	case answered && (direct || pair == h.nominated), guess && direct:
		h.taken = pair
		return true
	}
	return false
}
