//go:build !js

package rtc

import (
	"sync/atomic"

	"github.com/pion/ice/v4"
	"github.com/pion/stun/v4"
)

// A haste has ICE use a path that works before it is nominated, which would take a round trip more: data may be sent on any valid
// pair (RFC 8445, 12.1.1). The answerer takes the pair of the first check that arrives. That is a guess, since nothing is known of the
// other direction: if no check of its own is answered there, it takes the first pair on which one is. The offerer takes the first
// pair on which its own check has been answered and one of the answerer's has come. Only paths without a relay count: where there is a
// NAT in between, the first one that works need not be the best.
//
// The two ends may come to use different pairs. pion counts what arrives on either.
//
// Both ends have to know how, since the offerer does not repeat its nomination: who shows an SCTP INIT does. There is one try. An offer
// after one that led to no link shows none, and restarts go by nomination.
type haste struct {
	allowed atomic.Bool
	taken   *ice.CandidatePair // used by pion's agent only
}

// takes reports whether ICE is to use the pair of a check that has arrived.
func (h *haste) takes(m *stun.Message, local, remote ice.Candidate, pair *ice.CandidatePair) bool {
	direct := local.Type() == ice.CandidateTypeHost &&
		(remote.Type() == ice.CandidateTypeHost || remote.Type() == ice.CandidateTypePeerReflexive)
	if !h.allowed.Load() || !direct {
		return false
	}
	answered := pair.ResponsesReceived() > 0
	answerer := m.Contains(stun.AttrICEControlling) // so says the offerer
	better := h.taken == nil || answerer && h.taken.ResponsesReceived() == 0
	if guess := answerer && h.taken == nil; !better || !answered && !guess {
		return false
	}
	h.taken = pair
	return true
}
