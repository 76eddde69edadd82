package sidecar

import (
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// Messages are counted before the agent gets them.
func TestReceivedIsCountedFirst(t *testing.T) {
	v := newVictim(t)
	bob := v.meet("bob")
	bob.inline = true
	counted := make(chan wire.PeerStats, 3)
	v.reads(func(said string) {
		if strings.Contains(said, "counted") {
			counted <- v.peerOf(bob).stats()
		}
	})
	line := `{"type":"x","payload":"counted"}`
	for n := 1; n <= cap(counted); n++ {
		bob.says(line)
		st := testutil.Take(t, "the message", counted)
		if st.MessagesReceived != n || st.BytesReceived != n*len(line) {
			t.Errorf("the agent has message %d, and %d of %d bytes are counted", n, st.MessagesReceived, st.BytesReceived)
		}
	}
}
