//go:build !js

package rtc

import "testing"

// The end of a gathering may be heard of when a restart has begun another one, whose candidates are to come: an address that could
// not be used before is then no reason to give up.
func TestGatheredBeforeRestart(t *testing.T) {
	s := &session{failures: &failures{}, number: 1}
	s.failures.note(socketFailure, "bind: cannot assign requested address")
	s.gathered() // would end the session, which has no node
}
