package sidecar

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// An agent is sent no extensions that its hello does not name, and no messages over
// its limit.
func TestTerms(t *testing.T) {
	settings := newSignaling(t)
	alice := newAgent(t, settings("alice"))
	alice.say(`{"type":"hello","payload":{"protocol":1,"features":["cancel"],"max_message":1000}}`)
	alice.expect("ready")
	bob := newAgent(t, settings("bob")).greeted()
	bob.expect("peer_connected")
	alice.expect("peer_connected")

	for _, text := range []string{strings.Repeat("x", 1000), "short"} {
		bob.send("alice", `{"type":"note","payload":"`+text+`"}`)
	}
	if e := alice.expect("message"); !strings.Contains(e.Payload["message"].(map[string]any)["payload"].(string), "short") {
		t.Errorf("got %.300v", e)
	}
	if alice.log.Count("message dropped") != 1 {
		t.Error("what was dropped is not in the log")
	}
	for _, line := range []string{"not JSON", `{"type":"drain"}`, `{"type":"connect","payload":{"target_peer_id":"nobody"}}`} {
		alice.say(line)
		alice.say(`{"type":"list_peers"}`)
		if e := alice.next(); e.Type != "peer_list" {
			t.Errorf("%s: got %.300v", line, e)
		}
	}
	bob.conn.Close()
	alice.expect("peer_disconnected")
}

// An agent that never says hello is sent no line over the base limit, to the byte, and
// no message that its parser rejects.
func TestTermsOfSilence(t *testing.T) {
	settings := newSignaling(t)
	alice := newAgent(t, settings("alice"))
	bob := newAgent(t, settings("bob")).greeted()
	bob.expect("peer_connected")
	alice.expect("peer_connected")
	empty := len(wire.AppendMessage(nil, "bob", []byte(`{"type":"note","payload":""}`)))
	longest := strings.Repeat("x", wire.BaseMaxLine-empty)
	for _, payload := range []string{
		`"` + longest + `x"`, `"` + longest + `"`, strings.Repeat("1", 5000), `"\ud800"`,
		strings.Repeat("[", 200) + strings.Repeat("]", 200), `"last"`,
	} {
		bob.send("alice", `{"type":"note","payload":`+payload+`}`)
	}
	for _, want := range []string{longest, "last"} {
		e := alice.next()
		got, _ := e.Payload["message"].(map[string]any)
		if e.Type != "message" || got["payload"] != want {
			t.Errorf("got %.200v, want %.20q and so on", e, want)
		}
	}
	if n := alice.log.Count("message dropped"); n != 4 {
		t.Errorf("%d messages dropped in the log", n)
	}
}

// peer_list keeps to the base limit, too.
func TestPeerListOfSilence(t *testing.T) {
	var peers []string
	for i := range 600 {
		peers = append(peers, fmt.Sprintf("%0128d", i))
	}
	line, listed := (*terms)(nil).peerList([]byte("before\n"), wire.PeerList{Peers: peers})
	line = bytes.TrimPrefix(line, []byte("before\n"))
	if len(line) > 65536 || listed == 0 || listed == len(peers) || !bytes.HasSuffix(line, []byte("]}}\n")) {
		t.Errorf("%d bytes with %d peers: %.100q", len(line), listed, line)
	}
	if _, listed := new(terms).peerList(nil, wire.PeerList{Peers: peers}); listed != len(peers) {
		t.Errorf("%d of %d listed for an agent that has said hello", listed, len(peers))
	}
}
