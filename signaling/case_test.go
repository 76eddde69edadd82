package signaling_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// A receiver that ignores case, as Go's encoding/json does, must not see another sender, target, type or payload
// than this server has checked.
func TestOtherCaseIsNotRelayed(t *testing.T) {
	s := serve(t, nil)
	one, _ := s.join(t, "key-one-of-tests")
	two, _ := s.join(t, "key-two-of-tests")
	const offer = `{"type":"offer","peer_id":"agent-001","target_id":"agent-002","payload":{"sdp":"v=0\r\n"}`
	for _, forged := range []string{
		offer + `,"Peer_ID":"agent-003"}`,
		offer + `,"PEER_ID":"agent-003"}`,
		offer + `,"\u0050eer_id":"agent-003"}`,
		offer + `,"Target_Id":"agent-003"}`,
		offer + `,"Type":"answer"}`,
		offer + `,"Payload":{"sdp":"other"}}`,
		strings.Replace(offer, "peer_id", "Peer_id", 1) + "}",
		strings.Replace(offer, "agent-001", "agent-003", 1) + `,"PEER_ID":"agent-001"}`,
		strings.Replace(offer, "target_id", "TARGET_ID", 1) + "}",
	} {
		one.send(forged)
		one.send("are you there?")
		e := one.nextError()
		if e.Code != signal.CodeMalformed || !strings.Contains(e.Message, "case") {
			t.Fatalf("%s: error %+v, want %s about the case", forged, e, signal.CodeMalformed)
		}
		one.nextError()
		two.register() // fails if anything was relayed
	}
	// What is the application's own is relayed as it is.
	honest := offer + `,"Peer":"x","peer-id":"y","more":{"Peer_ID":"agent-003"}}`
	one.send(honest)
	var folded struct {
		PeerID string `json:"peer_id"`
	}
	if got := two.next(); got != honest || json.Unmarshal([]byte(got), &folded) != nil || folded.PeerID != "agent-001" {
		t.Errorf("relayed %s, want %s", got, honest)
	}
}
