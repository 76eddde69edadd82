package mesh

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh/internal/wire"
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

// An agent that never says hello gets no line over its limit, to the byte, and
// no message that its parser fails at.
func TestTermsOfSilence(t *testing.T) {
	st := newStage(t, "")
	u, err := url.Parse(st.url)
	if err != nil {
		t.Fatal(err)
	}
	alice := startRawAgent(t, settings{SignalingURL: st.url, TokenURL: "http://" + u.Host + "/api/token", APIKey: "alice"})
	bob := st.start(t, InProcess, "bob")
	if err := bob.WaitPeer(bounded(t), "alice"); err != nil {
		t.Fatal(err)
	}
	if e := alice.next(); e.Type != "peer_connected" {
		t.Fatalf("got %+v", e)
	}
	empty := len(wire.AppendMessage(nil, "bob", []byte(`{"type":"note","payload":""}`)))
	longest := strings.Repeat("x", 65536-empty)
	for _, payload := range []any{
		longest + "x", longest, rawJSON(strings.Repeat("1", 5000)), rawJSON(`"\ud800"`),
		rawJSON(strings.Repeat("[", 200) + strings.Repeat("]", 200)), "last",
	} {
		if err := bob.Send(bounded(t), "alice", Message{Type: "note", Payload: payload}); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{longest, "last"} {
		e := alice.next()
		got, _ := e.Payload["message"].(map[string]any)
		if e.Type != "message" || got["payload"] != want {
			t.Errorf("got %.200v, want %.20q and so on", e, want)
		}
	}
	if n := alice.log.count("message dropped"); n != 4 {
		t.Errorf("%d messages dropped in the log", n)
	}
}

func rawJSON(s string) any { return json.RawMessage(s) }

// peer_list is a line like any other.
func TestPeerListOfSilence(t *testing.T) {
	var peers []string
	for i := range 600 {
		peers = append(peers, fmt.Sprintf("%0128d", i))
	}
	line, listed := (*terms)(nil).peerList([]byte("before\n"), peers)
	line = bytes.TrimPrefix(line, []byte("before\n"))
	if len(line) > 65536 || listed == 0 || listed == len(peers) || !bytes.HasSuffix(line, []byte("]}}\n")) {
		t.Errorf("%d bytes with %d peers: %.100q", len(line), listed, line)
	}
	if _, listed := new(terms).peerList(nil, peers); listed != len(peers) {
		t.Errorf("%d of %d listed for an agent that has said hello", listed, len(peers))
	}
}
