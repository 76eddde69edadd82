package signaling_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/signaling"
)

// registerWith registers with a payload and returns without waiting for the response.
func (p *peer) registerWith(payload string) {
	p.t.Helper()
	p.send(`{"type":"register","peer_id":"` + p.id + `","payload":` + payload + `}`)
}

// listed reads the response to a register that was accepted.
func (p *peer) listed() {
	p.t.Helper()
	if text := p.next(); !strings.Contains(text, signal.PeerList) {
		p.t.Fatalf("response to register: %s", text)
	}
}

// receives checks that messages for the peer's id arrive at p.
func (p *peer) receives(from *peer) {
	p.t.Helper()
	offer := `{"type":"offer","peer_id":"` + from.id + `","target_id":"` + p.id + `"}`
	from.send(offer)
	if got := p.next(); got != offer {
		p.t.Fatalf("got %s, want the offer", got)
	}
}

// TestNewerInstanceStays: of two connections of one peer the one started later stays.
func TestNewerInstanceStays(t *testing.T) {
	for _, c := range []struct {
		name, first, second string // payloads of register
		firstStays          bool
	}{
		{"later", `{"started":1000}`, `{"started":1001}`, false},
		{"earlier", `{"started":1001}`, `{"started":1000}`, true},
		{"equal", `{"started":1000}`, `{"started":1000}`, false},
		{"only the first known", `{"started":1000}`, `{}`, false},
		{"only the second known", `null`, `{"started":1000}`, false},
		{"the epoch", `{"started":1}`, `{"started":0}`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, nil)
			other, _ := s.join(t, "key-two-of-tests")
			first, second := s.dial(t, "key-one-of-tests"), s.dial(t, "key-one-of-tests")
			first.registerWith(c.first)
			first.listed()
			second.registerWith(c.second)
			stays, goes := second, first
			if c.firstStays {
				stays, goes = first, second
			} else {
				second.listed()
			}
			if code, reason := goes.closed(); code != signal.CloseReplaced || !strings.Contains(reason, "replaced") {
				t.Fatalf("closed with %d %q", code, reason)
			}
			stays.receives(other)
		})
	}
}

// TestUndecided: a connection that has not registered cannot be compared, so the other one is the member
// until then.
func TestUndecided(t *testing.T) {
	for _, c := range []struct {
		name, orphan, successor string
		orphanStays             bool
	}{
		{"the orphan registers before its successor", `{"started":1000}`, `{"started":2000}`, false},
		{"base clients", `{}`, `{}`, true}, // the orphan has connected later
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, nil)
			other, _ := s.join(t, "key-two-of-tests")
			successor := s.dial(t, "key-one-of-tests")
			orphan := s.dial(t, "key-one-of-tests")
			orphan.registerWith(c.orphan)
			orphan.listed()
			orphan.receives(other)
			successor.registerWith(c.successor)
			stays, goes := successor, orphan
			if c.orphanStays {
				stays, goes = orphan, successor
			} else {
				successor.listed()
			}
			if code, _ := goes.closed(); code != signal.CloseReplaced {
				t.Fatalf("closed with %d", code)
			}
			stays.receives(other)
		})
	}
}

// TestNewcomer: a second connection that says nothing changes nothing while the member is there.
func TestNewcomer(t *testing.T) {
	s := serve(t, nil)
	other, _ := s.join(t, "key-two-of-tests")
	member, _ := s.join(t, "key-one-of-tests")
	first := s.dial(t, "key-one-of-tests")
	member.receives(other)
	second := s.dial(t, "key-one-of-tests")
	if code, _ := first.closed(); code != websocket.StatusTryAgainLater {
		t.Fatalf("the first newcomer was closed with %d, want %d, which is not final", code, websocket.StatusTryAgainLater)
	}
	member.receives(other)
	_ = member.CloseNow()
	testutil.Eventually(t, "the member gone", func() bool { return len(other.register()) == 0 })
	second.receives(other)
}

// TestBaseNewcomer: a base client may send other messages before it registers.
func TestBaseNewcomer(t *testing.T) {
	s := serve(t, nil)
	other, _ := s.join(t, "key-two-of-tests")
	old := s.dial(t, "key-one-of-tests")
	old.registerWith(`{"started":1000}`)
	old.listed()
	young := s.dial(t, "key-one-of-tests")
	young.send(`{"type":"offer","peer_id":"agent-001","target_id":"agent-002"}`)
	if got := other.next(); !strings.Contains(got, signal.Offer) {
		t.Fatalf("got %s, want the newcomer's offer", got)
	}
	if code, _ := old.closed(); code != signal.CloseReplaced {
		t.Fatalf("closed with %d", code)
	}
	young.receives(other)
}

func TestRegisterIfFree(t *testing.T) {
	s := serve(t, nil)
	other, _ := s.join(t, "key-two-of-tests")
	member := s.dial(t, "key-one-of-tests")
	member.registerWith(`{"started":1000,"if_free":true}`)
	member.listed()
	for range 3 {
		tool := s.dial(t, "key-one-of-tests")
		tool.registerWith(`{"started":2000,"if_free":true}`)
		if e := tool.nextError(); e.Code != signal.CodeInUse || e.Message == "" {
			t.Fatalf("error %+v, want %s", e, signal.CodeInUse)
		}
		if code, _ := tool.closed(); code != signal.CloseInUse {
			t.Fatalf("closed with %d, want %d", code, signal.CloseInUse)
		}
	}
	member.receives(other)
}

// plainWriter is a ResponseWriter of the kind that a careless middleware passes on.
type plainWriter struct{ http.ResponseWriter }

type unwrappable struct{ http.ResponseWriter }

func (u unwrappable) Unwrap() http.ResponseWriter { return u.ResponseWriter }

func TestMiddleware(t *testing.T) {
	for _, c := range []struct {
		name   string
		wrap   func(http.ResponseWriter) http.ResponseWriter
		status int
	}{
		{"without Hijacker", func(w http.ResponseWriter) http.ResponseWriter { return plainWriter{w} }, http.StatusNotImplemented},
		{"with Unwrap", func(w http.ResponseWriter) http.ResponseWriter { return unwrappable{unwrappable{w}} }, http.StatusSwitchingProtocols},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, nil)
			s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.sig.ServeHTTP(c.wrap(w), r) })
			conn, status, err := s.dialToken(t, s.token(t, "key-one-of-tests"), nil)
			if status != c.status {
				t.Fatalf("status %d, %v, want %d", status, err, c.status)
			}
			if err == nil {
				_ = conn.CloseNow()
				return
			}
			if status, body := s.do(t, "GET", "/ws?token="+s.token(t, "key-one-of-tests"), "Upgrade", "websocket", "Connection", "Upgrade"); !strings.Contains(fmt.Sprint(body["error"]), "Unwrap") {
				t.Errorf("%d %v, want an explanation", status, body)
			}
			if log := s.log.String(); !strings.Contains(log, `"level":"error"`) || !strings.Contains(log, "http.Hijacker") || !strings.Contains(log, "plainWriter") {
				t.Errorf("log %s, want the cause", log)
			}
		})
	}
}

func TestFailedHandshakeIsLogged(t *testing.T) {
	s := serve(t, nil)
	s.do(t, "GET", "/ws?token="+s.token(t, "key-one-of-tests"), "Upgrade", "websocket", "Connection", "Upgrade")
	if log := s.log.String(); !strings.Contains(log, `"level":"warn"`) || !strings.Contains(log, "handshake failed") {
		t.Fatalf("log %s", log)
	}
}

func TestICEServerJSON(t *testing.T) {
	for text, want := range map[string]string{
		`{"urls":"stun:a"}`: `{"urls":["stun:a"]}`,
		`{"urls":["turn:a","turns:a"],"username":"u","credential":"p"}`: `{"urls":["turn:a","turns:a"],"username":"u","credential":"p"}`,
		`{"urls":7}`: "",
	} {
		var s signaling.ICEServer
		err := json.Unmarshal([]byte(text), &s)
		if want == "" {
			if err == nil {
				t.Errorf("%s was read as %+v", text, s)
			}
			continue
		}
		if b, _ := json.Marshal(s); err != nil || string(b) != want {
			t.Errorf("%s became %s, %v", text, b, err)
		}
	}
}

// TestNewcomerLeaves: a second connection that leaves before it has registered changes nothing for the first, and does
// not take its place later.
func TestNewcomerLeaves(t *testing.T) {
	s := serve(t, nil)
	other, _ := s.join(t, "key-two-of-tests")
	first, _ := s.join(t, "key-one-of-tests")
	_ = s.dial(t, "key-one-of-tests").CloseNow()
	s.log.Wait(t, "peer disconnected")
	first.receives(other)
	other.receives(first)
	_ = first.CloseNow()
	testutil.Eventually(t, "the first is gone", func() bool { return len(other.register()) == 0 })
	other.send(`{"type":"offer","peer_id":"agent-002","target_id":"agent-001"}`)
	if e := other.nextError(); e.Code != signal.CodePeerUnavailable {
		t.Errorf("got %+v", e)
	}
}
