package wire_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh/internal/wire"
)

func TestParseCommand(t *testing.T) {
	tests := []struct {
		line string
		want string // type, peer, message type, request id, except, payload
	}{
		{`{"type":"send","payload":{"target_peer":"p","message":{"type":"x"}}}`, "send p x"},
		{`{"payload":{"message":{"type":"x"},"target_peer":"p"},"type":"send"}`, "send p x"},
		{`{"\u0074ype":"s\u0065nd","payload":{"target\u005fpeer":"\u0070\n","message":{"type":"x"}}}`, "send p\n x"},
		{`{"type":"send","payload":{"target_peer":"p","message":{"type":"x"},"except":7,"all":[],"peer_id":{},"request_id":1}}`,
			"send p x"},
		{`{"type":"broadcast","payload":{"message":{"type":"x"}}}`, "broadcast x"},
		{`{"type":"broadcast","payload":{"message":{"type":"x"},"except":null}}`, "broadcast x"},
		{`{"type":"broadcast","payload":{"message":{"type":"x"},"except":[]}}`, "broadcast x []"},
		{`{"type":"broadcast","payload":{"message":{"type":"x"},"except":[ "a" , "\u0062" ]}}`, `broadcast x [ "a" , "\u0062" ]`},
		{`{"type":"list_peers","payload":{"message":7,"target_peer":7}}`, "list_peers"},
		{`{"type":"list_peers","payload":{"message":{"type":7}}}`, "list_peers"},
		{`{"type":"list_peers","payload":{"message":{"type":"x"}}}`, "list_peers"},
		{`{"type":"connect","payload":{"target_peer_id":"p","target_peer":7}}`, "connect p"},
		{`{"type":"hello"}`, "hello"},
		{`{"type":"hello","payload":null}`, "hello"},
		{`{"type":"hello","payload":{ }}`, "hello { }"},
		{`{"type":"pause","payload":{"peer_id":"p"}}`, "pause p"},
		{`{"type":"pause","payload":{"peer_id":"p","all":true}}`, "pause p all"},
		{`{"type":"pause","payload":{"peer_id":"p","ordered":true}}`, "pause p ordered"},
		{`{"type":"pause","payload":{"peer_id":"p","ordered":true,"all":true}}`, "pause p all"},
		{`{"type":"pause","payload":{"peer_id":"p","ordered":false,"all":false}}`, "pause p"},
		{`{"type":"pause","payload":{"peer_id":"p","all":null}}`, "pause p"},
		{`{"type":"resume","payload":{"peer_id":"p","all":7}}`, "resume p"},
		{`{"type":"cancel","payload":{"target_peer":"p","request_id":"r","from_peer":7}}`, "cancel p r"},
		{`{"type":"drain"}`, "drain"},
	}
	for _, test := range tests {
		t.Run(test.line, func(t *testing.T) {
			var l wire.Line
			if err := wire.ParseCommand([]byte(test.line), wire.Limits{}, &l); err != nil {
				t.Fatal(err)
			}
			if got := describe(&l); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if string(l.Name) != l.Type.String() {
				t.Errorf("name %q, type %v", l.Name, l.Type)
			}
		})
	}
}

func TestParseEvent(t *testing.T) {
	tests := []struct{ line, want string }{
		{`{"type":"message","payload":{"from_peer":"p","message":{"type":"x"}}}`, "message p x"},
		{`{"type":"peer_connected","payload":{"peer_id":"p"}}`, `peer_connected p {"peer_id":"p"}`},
		{`{"type":"peer_disconnected","payload":{"peer_id":"p"}}`, "peer_disconnected p"},
		{`{"type":"peer_list","payload":{"peers":[]}}`, `peer_list {"peers":[]}`},
		{`{"type":"ready","payload":{"protocol":1}}`, `ready {"protocol":1}`},
		{`{"type":"signaling","payload":{"peer_id":7}}`, `signaling {"peer_id":7}`},
		{`{"type":"error","payload":{"message":"no","target_peer":"","request_id":7}}`,
			`error {"message":"no","target_peer":"","request_id":7}`},
		{`{"type":"error","payload":{"message":{}}}`, `error {"message":{}}`},
		{`{"type":"cancel","payload":{"from_peer":"p","request_id":"r"}}`, "cancel p r"},
		{`{"type":"pause","payload":{"peer_id":"p","all":true}}`, "pause p all"},
		{`{"type":"resume","payload":{"peer_id":"p"}}`, "resume p"},
		{`{"type":"drained","payload":{"unsent":[1]}}`, `drained {"unsent":[1]}`},
		{`{"type":"pong"}`, "pong"},
		// Events of a later version, with any contents.
		{`{"type":"weather"}`, "unknown"},
		{`{"type":"send","payload":{"message":{"type":7}}}`, "unknown"},
		{`{"type":"weather","payload":{"message":{"type":"x"},"from_peer":"p"}}`, "unknown p"},
		{`{"type":"weather","payload":[1]}`, "unknown"},
		{`{"type":"","payload":{}}`, "unknown"},
	}
	for _, test := range tests {
		t.Run(test.line, func(t *testing.T) {
			var l wire.Line
			if err := wire.ParseEvent([]byte(test.line), wire.Limits{}, &l); err != nil {
				t.Fatal(err)
			}
			if got := describe(&l); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func describe(l *wire.Line) string {
	parts := []string{l.Type.String()}
	for _, part := range [...][]byte{l.Peer, l.Message.Type, l.RequestID, l.Except, l.Payload} {
		if part != nil {
			parts = append(parts, string(part))
		}
	}
	switch l.Stop {
	case wire.StopOrdered:
		parts = append(parts, "ordered")
	case wire.StopAll:
		parts = append(parts, "all")
	}
	return strings.Join(parts, " ")
}

// TestParseLineErrors also checks what is known of an invalid line, for the error event.
func TestParseLineErrors(t *testing.T) {
	const malformed, field = wire.CodeMalformed, wire.CodeInvalidField
	tests := []struct {
		line  string
		code  wire.Code
		says  string
		known string // name, peer, message's request id
	}{
		{`{"type":"send","payload":{"target_peer":"p","message":{"type":"x","request_id":"r","payload":tru`,
			malformed, "payload.message: unexpected \"t\", want a value at byte 93", "send p r"},
		{`{"payload":{"message":{"type":"x","request_id":"r"},"target_peer":"p",`, malformed, "payload: ", "p r"},
		{`{"type":"send","payload":{"target_peer":"p","message":{"type":"x","request_id":"r"}}}}`,
			malformed, "want the end at byte 85", "send p r"},
		{`{"type":"teleport","payload":{"target_peer":"p"}}`, wire.CodeUnknownType, `type: no such command: "teleport" at byte 8`,
			"teleport p"},
		{`{"type":"message","payload":{"from_peer":"p","message":{"type":"x"}}}`, wire.CodeUnknownType, `"message"`, "message p"},
		{`{"type":"send","payload":{"target_peer":"p","message":{"type":7,"request_id":"r"}}}`,
			field, "payload.message.type: want a string at byte 62", "send p r"},
		{`{"type":"send","payload":{"target_peer":"p","message":{"request_id":"r"}}}`,
			field, "payload.message.type: missing at byte 54", "send p r"},
		{`{"type":"send","payload":{"message":{"type":"x","request_id":"r"}}}`, field, "payload.target_peer: missing", "send r"},
		{`{"type":"send","payload":{"target_peer":7,"message":{"type":"x"}}}`,
			field, "payload.target_peer: want a string at byte 40", "send"},
		{`{"type":"send"}`, field, "payload.target_peer: missing", "send"},
		{`{"type":"send","payload":null}`, field, "payload.target_peer: missing", "send"},
		{`{"type":"send","payload":"p"}`, field, "payload: want an object at byte 25", "send"},
		{`{"type":"send","payload":{},"payload":{}}`, field, "payload: present twice at byte 38", "send"},
		{`{"type":"send","type":"send","payload":{"target_peer":"p"}}`, field, "type: present twice", "send p"},
		{`{"type":"send","payload":{"target_peer":"p","message":{"type":"x"},"message":{"type":"x"}}}`,
			field, "payload.message: present twice at byte 77", "send p"},
		{`{"type":"send","payload":{"target_peer":"p","message":null}}`, field, "payload.message: want an object at byte 54", "send p"},
		{`{"type":"connect","payload":{"target_peer":"p"}}`, field, "payload.target_peer_id: missing", "connect"},
		{`{"type":"connect","payload":{"target_peer_id":""}}`, field, "payload.target_peer_id: empty at byte 46", "connect "},
		{`{"type":"pause","payload":{}}`, field, "payload.peer_id: missing", "pause"},
		{`{"type":"cancel","payload":{"target_peer":"p"}}`, field, "payload.request_id: missing", "cancel p"},
		{`{"type":"cancel","payload":{"target_peer":"p","request_id":""}}`, field, "payload.request_id: empty", "cancel p"},
		{`{"type":"cancel","payload":{"target_peer":"p","request_id":7}}`, field, "payload.request_id: want a string", "cancel p"},
		{`{"type":"broadcast","payload":{"message":{"type":"x"},"except":"p"}}`, field, "payload.except: want an array", "broadcast"},
		{`{"type":"broadcast","payload":{"message":{"type":"x"},"except":[null]}}`, field, "payload.except: want an array", "broadcast"},
		{`{"type":"broadcast","payload":{"except":["p"]}}`, field, "payload.message: missing", "broadcast"},
		{`{"type":"hello","payload":[]}`, field, "payload: want an object", "hello"},
		{`{"type":["send"]}`, field, "type: want a string at byte 8", ""},
		{`{}`, field, "type: missing at byte 0", ""},
	}
	for _, test := range tests {
		t.Run(test.line, func(t *testing.T) {
			var l wire.Line
			err := wire.ParseCommand([]byte(test.line), wire.Limits{}, &l)
			if got := code(t, err); got != test.code || !strings.Contains(fmt.Sprint(err), test.says) {
				t.Errorf("%v, want %s: ...%s...", err, test.code, test.says)
			}
			var known []string
			for _, part := range [...][]byte{l.Name, l.Peer, l.Message.RequestID} {
				if part != nil {
					known = append(known, string(part))
				}
			}
			if got := strings.Join(known, " "); got != test.known {
				t.Errorf("knows %q, want %q", got, test.known)
			}
		})
	}
}

func TestUnknownTypeErrorIsBounded(t *testing.T) {
	var l wire.Line
	line := []byte(`{"type":"` + strings.Repeat("é", 1<<20) + `"}`)
	if err := wire.ParseCommand(line, wire.Limits{}, &l); code(t, err) != wire.CodeUnknownType || len(err.Error()) > 1000 {
		t.Errorf("%.2000v", err)
	}
}

// TestLineLimits checks that only the message's own bytes and levels count.
func TestLineLimits(t *testing.T) {
	message := func(size, depth int) []byte {
		text := `{"type":"t","d":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + `,"s":"`
		return []byte(text + strings.Repeat("x", size-len(text)-2) + `"}`)
	}
	lim := wire.Limits{MaxMessage: 2000, MaxDepth: 20}
	longID := strings.Repeat("p", wire.EnvelopeSize-100)
	tests := []struct {
		name string
		line []byte
		code wire.Code
	}{
		{"at both limits", wire.AppendSend(nil, "p", message(2000, 20)), ""},
		{"longest envelope", wire.AppendSend(nil, longID, message(2000, 20)), ""},
		{"line too long", wire.AppendSend(nil, longID+longID, message(2000, 20)), wire.CodeTooLarge},
		{"message too long", wire.AppendSend(nil, "p", message(2001, 20)), wire.CodeTooLarge},
		{"message too deep", wire.AppendSend(nil, "p", message(2000, 21)), wire.CodeTooDeep},
		{"envelope's own depth", []byte(`{"type":"list_peers","payload":{"x":` + strings.Repeat("[", 22) + strings.Repeat("]", 22) + `}}`), ""},
		{"envelope too deep", []byte(`{"type":"list_peers","payload":{"x":` + strings.Repeat("[", 23) + strings.Repeat("]", 23) + `}}`),
			wire.CodeTooDeep},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var l wire.Line
			err := wire.ParseCommand(bytes.TrimSuffix(test.line, []byte("\n")), lim, &l)
			if code(t, err) != test.code {
				t.Fatalf("%v, want code %q", err, test.code)
			}
			if err != nil || l.Type != wire.TypeSend {
				return
			}
			// A message that was accepted in a send is accepted on the peer link and in a message event.
			var p wire.PeerLine
			if err := wire.ParsePeerLine(l.Message.Raw, lim, &p); err != nil {
				t.Error(err)
			}
			event := wire.AppendMessage(nil, string(l.Peer), p.Message.Raw)
			if err := wire.ParseEvent(event[:len(event)-1], lim, &l); err != nil {
				t.Error(err)
			}
		})
	}
	if err := wire.ParsePeerLine(message(2001, 2), lim, new(wire.PeerLine)); code(t, err) != wire.CodeTooLarge {
		t.Errorf("peer line: %v", err)
	}
	if err := wire.ParsePeerLine(message(2000, 21), lim, new(wire.PeerLine)); code(t, err) != wire.CodeTooDeep {
		t.Errorf("peer line: %v", err)
	}
}

// TestViewsDoNotOverlap checks that an append to a field of Line cannot overwrite the line.
func TestViewsDoNotOverlap(t *testing.T) {
	line := []byte(`{"type":"send","payload":{"target_peer":"p","message":{"type":"x","payload":[1]},"later":1}}`)
	before := string(line)
	var l wire.Line
	if err := wire.ParseCommand(line, wire.Limits{}, &l); err != nil {
		t.Fatal(err)
	}
	for _, view := range [...][]byte{l.Name, l.Peer, l.Message.Raw, l.Message.Type, l.Message.Payload} {
		_ = append(view, "overwritten"...)
	}
	if string(line) != before {
		t.Errorf("line is now %s", line)
	}
}

func TestTypeString(t *testing.T) {
	if got := wire.Type(200).String(); got != "unknown" {
		t.Errorf("got %q", got)
	}
}

func TestAllocations(t *testing.T) {
	send := sendLine(1000)
	var l wire.Line
	if err := wire.ParseCommand(send, wire.Limits{}, &l); err != nil {
		t.Fatal(err)
	}
	message := append([]byte(nil), l.Message.Raw...)
	event := bytes.TrimSuffix(wire.AppendMessage(nil, "peer-abc", message), []byte("\n"))
	broadcast := bytes.TrimSuffix(wire.AppendBroadcast(nil, message, nil), []byte("\n"))
	reader := wire.NewReader(&loop{text: append(sendLine(1000), '\n')}, wire.Limits{}.MaxLine())
	var m wire.Message
	var p wire.PeerLine
	out := make([]byte, 0, 4096)
	check := func(name string, f func() error) {
		t.Helper()
		if n := testing.AllocsPerRun(100, func() {
			if err := f(); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
	check("ParseCommand send", func() error { return wire.ParseCommand(send, wire.Limits{}, &l) })
	check("ParseCommand broadcast", func() error { return wire.ParseCommand(broadcast, wire.Limits{}, &l) })
	check("ParseEvent", func() error { return wire.ParseEvent(event, wire.Limits{}, &l) })
	check("ParsePeerLine", func() error { return wire.ParsePeerLine(message, wire.Limits{}, &p) })
	check("ParseMessage", func() error { return wire.ParseMessage(message, wire.Limits{}, &m) })
	check("ReadLine", func() error { _, err := reader.ReadLine(); return err })
	check("Append", func() error {
		out = wire.AppendSend(out[:0], "peer-abc", message)
		out = wire.AppendMessage(out[:0], "peer-abc", message)
		out = wire.AppendPeerMessage(out[:0], message)
		out = wire.AppendMessageFields(out[:0], wire.MessageFields{Type: "x", RequestID: "r", Payload: message})
		return nil
	})
}
