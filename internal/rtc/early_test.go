//go:build !js

package rtc

import (
	"fmt"
	"testing"

	"github.com/chatixia-ai/mesh/internal/signal"
)

func TestEarlyCandidatesAreBounded(t *testing.T) {
	var early earlyCandidates
	for i := range 3 * maxEarly {
		early.add(signal.ICECandidate{Candidate: fmt.Sprint(i), Session: fmt.Sprintf("s%d", i%2)})
	}
	if len(early) != maxEarly {
		t.Fatalf("%d candidates held", len(early))
	}
	got := early.take("s1")
	if len(got) != maxEarly/2 || got[len(got)-1].Candidate != fmt.Sprint(3*maxEarly-1) {
		t.Errorf("got %d candidates, last %v", len(got), got[len(got)-1])
	}
	if len(early) != maxEarly/2 {
		t.Errorf("%d candidates left", len(early))
	}
}
