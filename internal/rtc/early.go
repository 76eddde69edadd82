//go:build !js

package rtc

import "github.com/chatixia-ai/mesh/internal/signal"

// maxEarly bounds the early candidates of one peer. The oldest are dropped: they belong to sessions that
// came to nothing.
const maxEarly = 64

// earlyCandidates are the candidates that arrived before the description they belong to.
type earlyCandidates []signal.ICECandidate

func (e *earlyCandidates) add(c signal.ICECandidate) {
	if len(*e) == maxEarly {
		*e = (*e)[1:]
	}
	*e = append(*e, c)
}

// take removes and returns the candidates of a session.
func (e *earlyCandidates) take(session string) (cs []signal.ICECandidate) {
	var rest earlyCandidates
	for _, c := range *e {
		if c.Session == session {
			cs = append(cs, c)
		} else {
			rest = append(rest, c)
		}
	}
	*e = rest
	return cs
}
