//go:build linux || darwin

package sidecar

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

var streamsHello = strings.Replace(hello, `"drain"]`, `"drain","streams"]`, 1)

// secretOf says hello for an agent that knows streams, and returns the secret of ready.
func secretOf(t *testing.T, a *agent) string {
	t.Helper()
	a.say(streamsHello)
	secret, _ := a.expect("ready").Payload["secret"].(string)
	if len(secret) < 20 {
		t.Fatalf("secret %q", secret)
	}
	return secret
}

// What comes to the socket and is not for a stream of the agent is closed, with a reason if it speaks of a stream.
func TestStreamConnections(t *testing.T) {
	h := host(t, alone(""))
	a := h.dial()
	secret := secretOf(t, a)
	for _, tt := range []struct{ name, line, code string }{
		{"no secret", `{"type":"stream","payload":{"peer_id":"bob","service":"http"}}`, "unauthorized"},
		{"a wrong secret", `{"type":"stream","payload":{"peer_id":"bob","service":"http","secret":"x"}}`, "unauthorized"},
		{"no such peer", `{"type":"stream","payload":{"peer_id":"bob","service":"http","secret":"` + secret + `"}}`, "peer_not_connected"},
		{"no such offer", `{"type":"stream","payload":{"stream":"7","secret":"` + secret + `"}}`, "stream_reset"},
		{"an empty name", `{"type":"stream","payload":{"peer_id":"bob","service":"","secret":"` + secret + `"}}`, "invalid_field"},
		{"a long name", `{"type":"stream","payload":{"peer_id":"bob","service":"` + strings.Repeat("x", 300) + `","secret":"` + secret + `"}}`, "invalid_field"},
		{"a name with a space", `{"type":"stream","payload":{"peer_id":"bob","service":"a b","secret":"` + secret + `"}}`, "invalid_field"},
		{"a secret that is a number", `{"type":"stream","payload":{"secret":7}}`, ""},
		{"no JSON", `GET / HTTP/1.1`, ""},
		{"a hello", hello, ""},
		{"a line without end", strings.Repeat("x", 20_000), ""},
	} {
		c := h.dial()
		_, _ = io.WriteString(c.conn, tt.line+"\n")
		rest, _ := io.ReadAll(c.r) // it may be reset with what was not read
		var e event
		_ = json.Unmarshal(rest, &e)
		if got := fmt.Sprint(e.Payload["code"]); tt.code != "" && got != tt.code || tt.code == "" && len(rest) > 0 {
			t.Errorf("%s: %q", tt.name, rest)
		}
	}
	a.say(`{"type":"ping","payload":{}}`)
	a.say(`{"type":"list_peers"}`)
	a.expect("peer_list")
}

// Connections that say nothing do not keep others out for long, and cost no more than their places.
func TestSilentStreamConnections(t *testing.T) {
	h := host(t, alone(""))
	a := h.dial()
	secret := secretOf(t, a)
	for range maxCallers - 1 {
		h.dial()
	}
	c := h.dial()
	c.say(`{"type":"stream","payload":{"stream":"7","secret":"` + secret + `"}}`)
	if e := c.hear(); e.Payload["code"] != "stream_reset" {
		t.Errorf("got %v", e)
	}
}

// An agent is told that a service is known, and that a name can be none.
func TestListenCommand(t *testing.T) {
	a := newAgent(t, alone(""))
	secretOf(t, a)
	a.say(`{"type":"listen","payload":{"service":"http"}}`)
	if e := a.expect("listening"); e.Payload["service"] != "http" {
		t.Errorf("got %v", e)
	}
	for _, bad := range []string{`{}`, `{"service":""}`, `{"service":"a b"}`, `{"service":"` + strings.Repeat("x", 300) + `"}`, `{"service":7}`} {
		a.say(`{"type":"listen","payload":` + bad + `}`)
		if e := a.expect("error"); e.Payload["code"] != "invalid_field" || e.Payload["command"] != "listen" {
			t.Errorf("%s: %v", bad, e)
		}
	}
	for i := range wire.MaxServices {
		a.say(fmt.Sprintf(`{"type":"listen","payload":{"service":"s%d"}}`, i))
		if e := a.hear(); (e.Type == "error") != (i == wire.MaxServices-1) {
			t.Fatalf("service %d: %v", i, e)
		}
	}
	a.say(`{"type":"unlisten","payload":{"service":"s1"}}`)
	a.say(`{"type":"listen","payload":{"service":"again"}}`)
	a.expect("listening")
}

// A peer may have as many streams as it is allowed, and no number of peers takes them all.
func TestStreamsAreShared(t *testing.T) {
	s := newStreams()
	limits := wire.Limits{MaxStreams: 128}
	for i := range 100 {
		peer, n := fmt.Sprint(i), 0
		for s.enter(peer, limits) {
			n++
		}
		if i == 0 && n != 2*limits.MaxStreams || i < 15 && n < 30 {
			t.Errorf("peer %d gets %d streams", i, n)
		}
	}
	if s.all > streamsFactor*limits.MaxStreams {
		t.Errorf("%d streams in all", s.all)
	}
	for s.all > 0 {
		for peer := range s.open {
			s.leave(peer)
		}
	}
	if len(s.open) != 0 || !s.enter("other", limits) {
		t.Error("places are lost")
	}
}

// A pipeStream is a stream in memory.
type pipeStream struct {
	net.Conn
	reset chan uint32 // buffered 1
}

func pipe() (ours *pipeStream, theirs net.Conn) {
	near, far := net.Pipe()
	return &pipeStream{near, make(chan uint32, 1)}, far
}

func (s *pipeStream) CloseWrite() error { return nil }

func (s *pipeStream) Reset(code uint32) {
	s.reset <- code
	_ = s.Close()
}

// A stream that a peer opens and does not use ends, and gives its place back: one without a first line, or with half of one, and one that
// the agent does not take.
func TestStreamNeverUsed(t *testing.T) {
	for name, tt := range map[string]struct {
		line  string
		after time.Duration
		code  uint32
	}{
		"silent":    {"", linePatience, wire.ResetMalformed},
		"half":      {`["open",{"service":`, linePatience, wire.ResetMalformed},
		"not taken": {`["open",{"service":"http"}]` + "\n", streamPatience, wire.ResetRefused},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newVictim(t)
				v.reads(func(string) {})
				if err := v.streams.listen("http", true); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				ours, theirs := pipe()
				v.peerStream(v.meet("bob"), ours)
				if _, err := io.WriteString(theirs, tt.line); err != nil {
					t.Fatal(err)
				}
				if code := <-ours.reset; code != tt.code || time.Since(began) != tt.after {
					t.Errorf("reset with %d after %s", code, time.Since(began))
				}
				v.work.Wait()
				if v.streams.all != 0 || len(v.streams.offers) != 0 {
					t.Errorf("%d streams are left, %d offers", v.streams.all, len(v.streams.offers))
				}
			})
		})
	}
}

// Bytes written to a stream are counted before the peer can read them.
func TestWrittenIsCountedFirst(t *testing.T) {
	v := newVictim(t)
	p := v.peerOf(v.meet("bob"))
	ours, theirs := pipe()
	st, written := v.counted(p, ours), make(chan error)
	go func() { _, err := st.Write([]byte("ab")); written <- err }()
	for read, half := range []string{"a", "b"} {
		b := make([]byte, 1)
		if _, err := theirs.Read(b); err != nil || string(b) != half {
			t.Fatalf("read %q, %v", b, err)
		}
		if n := p.stats().BytesSent; n <= read {
			t.Errorf("%d bytes were read, %d are counted", read+1, n)
		}
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
}
