package signaling_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/signaling"
)

// enter connects with a key in the handshake, and returns the payload of the welcome.
func (s *site) enter(t *testing.T, key, register string) (*peer, map[string]any) {
	t.Helper()
	h := http.Header{"X-Api-Key": {key}}
	if register != "" {
		h.Set(signal.HeaderRegister, register)
	}
	c, status, err := s.dialToken(t, "", h)
	if err != nil {
		t.Fatalf("dial: %d %v", status, err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	p := &peer{t, testKeys[key].PeerID, c}
	m, err := signal.ParseMessage([]byte(p.next()))
	var greeting map[string]any
	if err != nil || m.Type != signal.Welcome || json.Unmarshal(m.Payload, &greeting) != nil {
		t.Fatalf("welcome: %v %s", err, m.Payload)
	}
	return p, greeting
}

// A client that presents its key in the handshake is told what the token exchange would have told, and registered if it
// has asked for that, for the id that the key has.
func TestKeyInHandshake(t *testing.T) {
	s := serve(t, func(c *signaling.Config) {
		c.ICEServers = []signaling.ICEServer{{URLs: []string{"turn:example.org"}, Username: "u", Credential: "c"}}
	})
	_, others := s.join(t, "key-two-of-tests")
	if len(others) != 0 {
		t.Fatal(others)
	}
	two := testKeys["key-two-of-tests"].PeerID
	for name, tt := range map[string]struct {
		register string
		listed   bool
		refused  string // the code of the error in place of the list
	}{
		"any id":            {`{"started":5}`, true, ""},
		"this id":           {`{"peer_id":"` + testKeys["key-one-of-tests"].PeerID + `"}`, true, ""},
		"null":              {`null`, true, ""},
		"no registration":   {"", false, ""},
		"another id":        {`{"peer_id":"somebody"}`, false, ""},
		"no JSON":           {`{`, false, signal.CodeInvalidField},
		"another case":      {`{"Peer_ID":"somebody"}`, false, signal.CodeInvalidField},
		"started is a text": {`{"started":"x"}`, false, signal.CodeInvalidField},
	} {
		t.Run(name, func(t *testing.T) {
			p, greeting := s.enter(t, "key-one-of-tests", tt.register)
			if greeting["peer_id"] != p.id || greeting["role"] == "" || len(greeting["iceServers"].([]any)) != 1 {
				t.Errorf("welcome %v", greeting)
			}
			token, _ := greeting["token"].(string)
			if status, body := s.do(t, "GET", "/api/config", "Authorization", "Bearer "+token); status != http.StatusOK || len(body["iceServers"].([]any)) != 1 {
				t.Errorf("ICE servers for the token of the welcome: %d %v", status, body)
			}
			if tt.refused != "" {
				if e := p.nextError(); e.Code != tt.refused {
					t.Errorf("error %+v", e)
				}
			}
			if tt.listed {
				if m, err := signal.ParseMessage([]byte(p.next())); err != nil || m.Type != signal.PeerList || !strings.Contains(string(m.Payload), two) {
					t.Errorf("peer list %v %+v", err, m)
				}
			}
			if got := p.register(); !slices.Equal(got, []string{two}) { // nothing else comes before it
				t.Errorf("peers %q", got)
			}
			_ = p.Close(websocket.StatusNormalClosure, "")
		})
	}
}

// Of two instances the handshake decides as register does: the one started later stays, and one of another id ends nobody.
func TestKeyInHandshakeReplaces(t *testing.T) {
	s := serve(t, nil)
	old, _ := s.enter(t, "key-one-of-tests", `{"started":5}`)
	old.next()
	other, _ := s.enter(t, "key-one-of-tests", `{"started":9,"peer_id":"somebody"}`)
	old.send("are you there?")
	old.nextError()
	_ = other.CloseNow()
	c, status, err := s.dialToken(t, "", http.Header{"X-Api-Key": {"key-one-of-tests"}, signal.HeaderRegister: {`{"started":4}`}})
	if err != nil {
		t.Fatalf("dial: %d %v", status, err)
	}
	earlier := &peer{t, old.id, c}
	if code, _ := earlier.closed(); code != signal.CloseReplaced {
		t.Errorf("the earlier instance was closed with %d", code)
	}
	s.enter(t, "key-one-of-tests", `{"started":6}`)
	if code, _ := old.closed(); code != signal.CloseReplaced {
		t.Errorf("the old instance was closed with %d", code)
	}
}

// A wrong key in the handshake is a guess like any other, and a token beside it decides.
func TestWrongKeyInHandshake(t *testing.T) {
	s := serve(t, func(c *signaling.Config) { c.MaxGuesses = 2 })
	wrong := http.Header{"X-Api-Key": {"no such key, nowhere"}}
	if _, status, err := s.dialToken(t, s.token(t, "key-one-of-tests"), wrong); err != nil {
		t.Errorf("with a token: %d %v", status, err)
	}
	for i, want := range []int{401, 401, 429} {
		if _, status, err := s.dialToken(t, "", wrong); err == nil || status != want {
			t.Errorf("guess %d: %d %v, want %d", i, status, err, want)
		}
	}
}
