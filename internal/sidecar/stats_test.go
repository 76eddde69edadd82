package sidecar

import (
	"strings"
	"testing"
)

// Who has got a message finds it counted.
func TestReceivedIsCountedFirst(t *testing.T) {
	v := newVictim(t)
	bob := v.meet("bob")
	bob.inline = true
	told, line := 0, `{"type":"x","payload":"counted"}`
	v.reads(func(said string) {
		if !strings.Contains(said, "counted") {
			return
		}
		told++
		if st := v.peerOf(bob).stats(); st.MessagesReceived != told || st.BytesReceived != told*len(line) {
			t.Errorf("the agent has message %d, and %d of %d bytes are counted", told, st.MessagesReceived, st.BytesReceived)
		}
	})
	for range 3 {
		bob.says(line)
		v.taken(bob)
	}
}
