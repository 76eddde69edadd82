package signaling

import (
	"bufio"
	"encoding/json"
	"os"
	"testing"

	"github.com/coder/websocket"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/signal"
)

// FuzzHandle passes arbitrary messages of a peer to the hub. Every relayed message must name its true sender, the
// sender gets only the server's own messages, and no peer is cut.
func FuzzHandle(f *testing.F) {
	file, err := os.Open("../docs/fixtures/signaling.jsonl")
	if err != nil {
		f.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for sc := bufio.NewScanner(file); sc.Scan(); {
		var x struct{ Line string }
		if err := json.Unmarshal(sc.Bytes(), &x); err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(x.Line))
	}
	f.Add([]byte(`{"type":"offer","peer_id":"agent-002","PEER_ID":"agent-001","target_id":"agent-002"}`))
	f.Add([]byte(`{"type":"offer","peer_id":"agent-001","Peer_ID":"agent-002","target_id":"agent-002"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		h := newHub(logs.NewOutside(zerolog.Nop(), logBurst))
		newClient := func(id string) *client {
			m := &client{id: id, out: signal.NewQueue(1<<20, nil), end: func(_ websocket.StatusCode, reason string, _ []byte) {
				t.Fatalf("%s was cut: %s", id, reason)
			}}
			h.join(m)
			return m
		}
		one, two := newClient("agent-001"), newClient("agent-002")
		h.handle(one, raw)
		if b, ok := two.out.Pop(); ok {
			var m map[string]any
			if err := json.Unmarshal(b, &m); err != nil || m["peer_id"] != "agent-001" || m["target_id"] != "agent-002" {
				t.Fatalf("%q was relayed as %q: %v", raw, b, err)
			}
			var folded signal.Message // as a receiver that ignores case sees it
			if err := json.Unmarshal(b, &folded); err != nil || folded.PeerID != "agent-001" || folded.TargetID != "agent-002" || folded.Type != m["type"] {
				t.Fatalf("%q was relayed as %q: %v", raw, b, err)
			}
			if typ := m["type"]; typ != signal.Offer && typ != signal.Answer && typ != signal.Candidate {
				t.Fatalf("%q was relayed", raw)
			}
		}
		for b, ok := one.out.Pop(); ok; b, ok = one.out.Pop() {
			m, err := signal.ParseMessage(b)
			if err != nil || m.PeerID != serverID {
				t.Fatalf("%q was answered with %q: %v", raw, b, err)
			}
		}
	})
}

// TestReplacedMemberLeaves: a connection leaves some time after it was replaced.
func TestReplacedMemberLeaves(t *testing.T) {
	h := newHub(logs.NewOutside(zerolog.Nop(), logBurst))
	ended := 0
	old := &client{id: "a", end: func(websocket.StatusCode, string, []byte) { ended++ }}
	young := &client{id: "a", end: func(websocket.StatusCode, string, []byte) { t.Error("the newer connection was ended") }}
	h.join(old)
	h.claim(old)
	h.join(young)
	h.claim(young)
	h.leave(old)
	if h.find("a") != young || ended != 1 {
		t.Fatalf("found %p, want %p; ended %d times, want once", h.find("a"), young, ended)
	}
	h.leave(young)
	if h.find("a") != nil {
		t.Fatal("still there")
	}
}

// FuzzVerify: no text is a token unless this server has signed it.
func FuzzVerify(f *testing.F) {
	s, err := New(Config{Secret: "a secret of more than thirty-two bytes", Keys: map[string]Key{"the key of a in tests": {PeerID: "a", Role: "agent"}}})
	if err != nil {
		f.Fatal(err)
	}
	other, err := New(Config{Dev: true})
	if err != nil {
		f.Fatal(err)
	}
	forged, err := other.issue(Key{PeerID: "a", Role: "agent"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(forged)
	f.Add("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.")
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		if k, err := s.verify(token); err == nil {
			t.Fatalf("%q makes anyone %+v", token, k)
		}
	})
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(`{"keys":{"k":{"peer_id":"a","role":"agent"}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := parseKeys(b)
		if err != nil {
			return
		}
		if _, err := New(Config{Secret: "a secret of more than thirty-two bytes", Keys: keys, AllowWeakSecrets: true}); err != nil {
			t.Fatalf("%q was loaded and is refused: %v", b, err)
		}
	})
}
