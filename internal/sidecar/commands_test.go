package sidecar

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// badCommands are the fixtures that a sidecar has to reject.
func badCommands(t *testing.T) map[string]string {
	t.Helper()
	raw, err := os.ReadFile("../../docs/fixtures/link.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	bad := make(map[string]string)
	for l := range bytes.Lines(raw) {
		var c struct{ Name, To, Line, Expect string }
		if err := json.Unmarshal(l, &c); err != nil {
			t.Fatal(err)
		}
		if c.Expect == "error" && c.To == "sidecar" {
			bad[c.Name] = c.Line
		}
	}
	if len(bad) < 15 {
		t.Fatalf("only %d bad commands among the fixtures", len(bad))
	}
	bad["over the limit"] = `{"type":"send","payload":{"target_peer":"` + strings.Repeat("x", wire.DefaultMaxMessage+wire.EnvelopeSize) + `"}}`
	bad["not UTF-8"] = "{\"type\":\"send\",\"payload\":{\"target_peer\":\"\xff\",\"message\":{\"type\":\"x\"}}}"
	bad["no such peer"] = `{"type":"send","payload":{"target_peer":"p","message":{"type":"x"}}}`
	return bad
}

// Each bad line gets one error, and the link stays open.
func TestBadCommandsExtended(t *testing.T) {
	a := newAgent(t, alone(""))
	a.say(hello)
	if e := a.hear(); e.Type != "ready" {
		t.Fatalf("got %+v", e)
	}
	for name, line := range badCommands(t) {
		a.say(line)
		a.say(`{"type":"list_peers"}`)
		if e := a.hear(); e.Type != "error" || e.Payload["code"] == "" || e.Payload["message"] == "" {
			t.Errorf("%s: got %+v", name, e)
		}
		if e := a.hear(); e.Type != "peer_list" {
			t.Errorf("%s: then got %+v", name, e)
		}
	}
}

// A base agent is sent no errors; they are in the log.
func TestBadCommandsBase(t *testing.T) {
	a := newAgent(t, alone(""))
	bad := badCommands(t)
	for _, line := range bad {
		a.say(line)
	}
	a.say(`{"type":"list_peers"}`)
	if e := a.hear(); e.Type != "peer_list" {
		t.Errorf("got %+v", e)
	}
	if n := a.log.Count(`"level":"warn"`); n < len(bad) {
		t.Errorf("%d warnings for %d bad lines", n, len(bad))
	}
}

// The error for a bad line names the request, as far as the line could be read.
func TestErrorNamesTheRequest(t *testing.T) {
	a := newAgent(t, alone(""))
	a.say(hello)
	a.hear()
	a.say(`{"type":"send","payload":{"target_peer":"p","message":{"type":"x","request_id":"r1"}}}`)
	e := a.hear()
	if e.Payload["code"] != "peer_not_connected" || e.Payload["command"] != "send" || e.Payload["target_peer"] != "p" || e.Payload["request_id"] != "r1" {
		t.Errorf("got %+v", e)
	}
	a.say(`{"type":"cancel","payload":{"request_id":"r2"}}`)
	if e := a.hear(); e.Payload["code"] != "invalid_field" || e.Payload["command"] != "cancel" || e.Payload["request_id"] != "r2" {
		t.Errorf("got %+v", e)
	}
	a.say(`{"type":"send","payload":{"target_peer":"` + strings.Repeat("p", 2*maxEcho) + `"}}`)
	if e := a.hear(); e.Payload["code"] != "invalid_field" || e.Payload["target_peer"] != nil {
		t.Errorf("got %.300v", e)
	}
}

// drain has a response even with nothing to drain; EOF ends the sidecar.
func TestDrainAndEnd(t *testing.T) {
	a := newAgent(t, alone(""))
	a.say(hello)
	a.hear()
	a.say(`{"type":"drain"}`)
	if e := a.hear(); e.Type != "drained" {
		t.Errorf("got %+v", e)
	}
	a.conn.Close()
	if err := a.ended(); err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// A message goes to every peer that is not excepted; one that a peer does not take fails for that peer alone.
func TestBroadcast(t *testing.T) {
	settings := newSignaling(t)
	alice := newAgent(t, settings("alice")).greeted()
	small := settings("bob")
	small.Limits.MaxMessage = 1000
	bob := newAgent(t, small).greeted()
	bob.expect("peer_connected")
	carol := newAgent(t, settings("carol")).greeted()
	for _, a := range []*agent{alice, alice, bob, carol, carol} {
		a.expect("peer_connected")
	}
	alice.say(`{"type":"broadcast","payload":{"message":{"type":"first"},"except":["bob","nobody"]}}`)
	alice.say(`{"type":"broadcast","payload":{"message":{"type":"second","payload":"` + strings.Repeat("x", 1000) + `"}}}`)
	alice.say(`{"type":"broadcast","payload":{"message":{"type":"third"}}}`)
	if e := alice.expect("error"); e.Payload["code"] != "too_large" || e.Payload["command"] != "broadcast" || e.Payload["target_peer"] != "bob" {
		t.Errorf("got %v", e)
	}
	for a, types := range map[*agent][]string{bob: {"third"}, carol: {"first", "second", "third"}} {
		for _, want := range types {
			if e := a.expect("message"); e.Payload["message"].(map[string]any)["type"] != want || e.Payload["from_peer"] != "alice" {
				t.Errorf("got %.200v, want %s", e, want)
			}
		}
	}
}

// Of two instances with one key the one that was started later stays; the other one's agent is told, and its sidecar ends.
func TestReplaced(t *testing.T) {
	settings := newSignaling(t)
	earlier, later := settings("alice"), settings("alice")
	earlier.Signaling.Started, later.Signaling.Started = time.Unix(1000, 0), time.Unix(2000, 0)
	first := newAgent(t, earlier).greeted()
	for first.next().Payload["state"] != "connected" {
	}
	second := newAgent(t, later).greeted()
	for state := any(nil); state != "replaced"; {
		state = first.next().Payload["state"]
	}
	if err := first.ended(); !errors.Is(err, signal.ErrReplaced) {
		t.Errorf("Serve: %v", err)
	}
	second.say(`{"type":"drain"}`)
	second.expect("drained")
}

// A hello that makes no sense is an error, and leaves the agent a base one.
func TestBadHello(t *testing.T) {
	a := newAgent(t, alone("")).greeted()
	a.say(`{"type":"hello","payload":{"features":7}}`)
	if e := a.expect("error"); e.Payload["code"] != "invalid_field" || e.Payload["command"] != "hello" {
		t.Errorf("got %v", e)
	}
}
