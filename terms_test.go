package mesh

import (
	"net/url"
	"strings"
	"testing"
)

// An agent gets what its hello asks for and no more: extensions that it has not
// named, and messages longer than it reads, stay away.
func TestTerms(t *testing.T) {
	st := newStage(t, "")
	u, err := url.Parse(st.url)
	if err != nil {
		t.Fatal(err)
	}
	alice := startRawAgent(t, settings{SignalingURL: st.url, TokenURL: "http://" + u.Host + "/api/token", APIKey: "alice"})
	expect := func(typ string) event {
		t.Helper()
		e := alice.next()
		if e.Type != typ {
			t.Fatalf("got %.300v, want %s", e, typ)
		}
		return e
	}
	alice.say(`{"type":"hello","payload":{"protocol":1,"features":["cancel"],"max_message":1000}}`)
	expect("ready")
	bob := st.start(t, InProcess, "bob")
	if err := bob.WaitPeer(bounded(t), "alice"); err != nil {
		t.Fatal(err)
	}
	expect("peer_connected")

	for _, text := range []string{strings.Repeat("x", 1000), "short"} {
		if err := bob.Send(bounded(t), "alice", Message{Type: "note", Payload: text}); err != nil {
			t.Fatal(err)
		}
	}
	if e := expect("message"); !strings.Contains(e.Payload["message"].(map[string]any)["payload"].(string), "short") {
		t.Errorf("got %.300v", e)
	}
	if alice.log.count("message dropped") != 1 {
		t.Error("what was dropped is not in the log")
	}
	for _, line := range []string{"not JSON", `{"type":"drain"}`, `{"type":"connect","payload":{"target_peer_id":"nobody"}}`} {
		alice.say(line)
		alice.say(`{"type":"list_peers"}`)
		expect("peer_list")
	}
	if err := bob.Close(); err != nil {
		t.Error(err)
	}
	expect("peer_disconnected")
}
