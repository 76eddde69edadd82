package wire_test

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// fuzzLimits are small, so that the fuzzer reaches them.
var fuzzLimits = wire.Limits{MaxMessage: 4096, MaxDepth: 12}

func addFixtures(f *testing.F, file string) {
	for _, c := range fixtures(f, file) {
		if len(c.Line) < 2000 {
			f.Add([]byte(c.Line))
		}
	}
	f.Add([]byte("{\"\\u0074ype\":\"se\\u006ed\",\"payload\":{\"target_peer\":\"\\ud83d\",\"message\":{\"type\":\"\xc3\xa9\"}}}"))
	f.Add([]byte(`{"payload":{"message":{"payload":[[[[[[[[[[[[[[]]]]]]]]]]]]]],"type":"x"},"peer_id":"p"},"type":"pause"}`))
	f.Add([]byte("{\"type\":\"x\",\"a\":\"\x80\",\"b\":[1.0e+5,-0,{}],\"\x1f\":null}"))
}

// wellFormed reports whether text is one JSON value in valid UTF-8 that starts with one of first, as
// encoding/json sees it.
func wellFormed(text []byte, first string) bool {
	trimmed := bytes.Trim(text, " \t\r\n")
	return len(trimmed) > 0 && strings.IndexByte(first, trimmed[0]) >= 0 && json.Valid(text) && utf8.Valid(text)
}

// checkVerdict compares a parser's verdict on the grammar with encoding/json's. It returns whether the
// text was accepted.
func checkVerdict(t *testing.T, text []byte, first string, err error) bool {
	t.Helper()
	good := wellFormed(text, first)
	switch got := code(t, err); got {
	case "", wire.CodeInvalidField, wire.CodeUnknownType:
		if !good {
			t.Fatalf("%q: not well-formed, but: %v", text, err)
		}
	case wire.CodeMalformed:
		if good {
			t.Fatalf("%q: well-formed, but: %v", text, err)
		}
	case wire.CodeTooDeep, wire.CodeTooLarge:
	default:
		t.Fatalf("%q: code %q", text, got)
	}
	return err == nil
}

// members decodes an object with encoding/json; known names must not be duplicated or written in another case.
// It returns nil if text is no object.
func members(t *testing.T, text []byte, known ...string) map[string]json.RawMessage {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	if token, _ := d.Token(); token != json.Delim('{') {
		return nil
	}
	object := map[string]json.RawMessage{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		name := key.(string)
		if _, twice := object[name]; twice && slices.Contains(known, name) {
			t.Fatalf("%q: accepted, although %q is duplicated", text, name)
		}
		for _, k := range known {
			if k != name && strings.EqualFold(k, name) {
				t.Fatalf("%q: accepted, although readers that ignore case take %q for %q", text, name, k)
			}
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		object[name] = v
	}
	return object
}

// checkText compares a decoded string with the result of encoding/json.
func checkText(t *testing.T, what string, got []byte, member json.RawMessage) {
	t.Helper()
	if member == nil {
		if got != nil {
			t.Fatalf("%s: %q, but it is absent", what, got)
		}
		return
	}
	var want string
	if err := json.Unmarshal(member, &want); err != nil || got == nil || string(got) != want {
		t.Fatalf("%s: %q, want %q (%v)", what, got, want, err)
	}
}

func checkMessage(t *testing.T, m *wire.Message, raw json.RawMessage) {
	t.Helper()
	if string(m.Raw) != string(raw) {
		t.Fatalf("message %q, want %q", m.Raw, raw)
	}
	if len(raw) > fuzzLimits.MaxMessage {
		t.Fatalf("message of %d bytes accepted", len(raw))
	}
	if n := depth(raw); n > fuzzLimits.MaxDepth {
		t.Fatalf("message of depth %d accepted", n)
	}
	object := members(t, raw, "type", "request_id", "source_agent", "target_agent", "payload")
	if object["type"] == nil {
		t.Fatalf("message without type accepted: %q", raw)
	}
	checkText(t, "type", m.Type, object["type"])
	checkText(t, "request_id", m.RequestID, object["request_id"])
	checkText(t, "source_agent", m.SourceAgent, object["source_agent"])
	checkText(t, "target_agent", m.TargetAgent, object["target_agent"])
	if string(m.Payload) != string(object["payload"]) {
		t.Fatalf("payload %q, want %q", m.Payload, object["payload"])
	}
	checkOptional(t, m, raw)
}

// checkOptional checks the members that count if they are there once, and of their kind.
func checkOptional(t *testing.T, m *wire.Message, raw json.RawMessage) {
	t.Helper()
	count := make(map[string]int)
	last := make(map[string]json.RawMessage)
	d := json.NewDecoder(bytes.NewReader(raw))
	_, _ = d.Token()
	for d.More() {
		name, _ := d.Token()
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		count[name.(string)]++
		last[name.(string)] = value
	}
	var want []byte
	if meta := last["meta"]; count["meta"] == 1 && meta[0] == '{' {
		want = meta
	}
	if string(m.Meta) != string(want) {
		t.Fatalf("%q: meta %q, want %q", raw, m.Meta, want)
	}
	var timeout int64
	if count["timeout_ms"] == 1 && json.Unmarshal(last["timeout_ms"], &timeout) != nil {
		timeout = 0
	}
	if got := m.Timeout.Milliseconds(); got != max(0, min(timeout, 365*24*60*60*1000)) {
		t.Fatalf("%q: timeout %d, want %d", raw, got, timeout)
	}
	meta := wire.DecodeMeta(m.Meta)
	var members map[string]any
	if m.Meta != nil && json.Unmarshal(m.Meta, &members) != nil {
		t.Fatalf("%q: meta is no object", raw)
	}
	for name, value := range members {
		if text, ok := value.(string); meta != nil && (!ok || text != meta[name]) || len(meta) > len(members) {
			t.Fatalf("%q: meta %q", raw, meta)
		}
	}
}

func depth(text []byte) (most int) {
	d := json.NewDecoder(bytes.NewReader(text))
	open := 0
	for {
		token, err := d.Token()
		if err != nil {
			return most
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			open++
			most = max(most, open)
		case json.Delim('}'), json.Delim(']'):
			open--
		}
	}
}

func checkLine(t *testing.T, text []byte, event bool, peerNames map[string]string) {
	t.Helper()
	parse := wire.ParseCommand
	if event {
		parse = wire.ParseEvent
	}
	input := bytes.Clone(text)
	var l wire.Line
	err := parse(input, fuzzLimits, &l)
	if !bytes.Equal(input, text) {
		t.Fatal("the parser wrote to its input")
	}
	if !checkVerdict(t, text, "{", err) {
		return
	}
	var again wire.Line
	if err := parse(input, fuzzLimits.Checked(), &again); err != nil || !reflect.DeepEqual(again, l) {
		t.Fatalf("read again, without checks, it is %+v (%v), want %+v", again, err, l)
	}
	if n := depth(text); n > fuzzLimits.MaxDepth+wire.EnvelopeDepth {
		t.Fatalf("line of depth %d accepted", n)
	}
	envelope := members(t, text, "type", "payload")
	payload := members(t, envelope["payload"], "target_peer", "target_peer_id", "from_peer", "peer_id",
		"message", "request_id", "all", "except")
	checkText(t, "type", l.Name, envelope["type"])
	if l.Type == wire.TypeUnknown {
		if _, known := peerNames[string(l.Name)]; known || !event {
			t.Fatalf("%q: unknown type", l.Name)
		}
		return
	}
	if l.Type.String() != string(l.Name) {
		t.Fatalf("%q: type %v", l.Name, l.Type)
	}
	peerName, known := peerNames[string(l.Name)]
	if !known {
		t.Fatalf("%q: type %v", l.Name, l.Type)
	}
	if peerName != "" {
		checkText(t, peerName, l.Peer, payload[peerName])
		if len(l.Peer) == 0 {
			t.Fatal("accepted without a peer")
		}
	}
	switch l.Type {
	case wire.TypeSend, wire.TypeBroadcast, wire.TypeMessage:
		checkMessage(t, &l.Message, payload["message"])
	case wire.TypeCancel:
		checkText(t, "request_id", l.RequestID, payload["request_id"])
	case wire.TypePause:
		want := wire.StopNewWork
		if string(payload["ordered"]) == "true" {
			want = wire.StopOrdered
		}
		if string(payload["all"]) == "true" {
			want = wire.StopAll
		}
		if l.Stop != want {
			t.Fatalf("%v is held back, want %v", l.Stop, want)
		}
	}
	if l.Except != nil {
		var want []string
		got, err := wire.DecodeStrings(l.Except)
		if json.Unmarshal(payload["except"], &want) != nil || err != nil || !slices.Equal(got, want) {
			t.Fatalf("except %q (%v), want %q", got, err, want)
		}
	}
	if l.Payload != nil && string(l.Payload) != string(envelope["payload"]) {
		t.Fatalf("payload %q, want %q", l.Payload, envelope["payload"])
	}
}

func FuzzParseCommand(f *testing.F) {
	addFixtures(f, "link.jsonl")
	f.Fuzz(func(t *testing.T, text []byte) {
		checkLine(t, text, false, map[string]string{"send": "target_peer", "broadcast": "", "list_peers": "",
			"connect": "target_peer_id", "hello": "", "pause": "peer_id", "resume": "peer_id", "cancel": "target_peer",
			"drain": "", "ping": "", "listen": "", "unlisten": "", "refuse": "", "stream_end": "", "stats": "", "card": ""})
	})
}

func FuzzParseEvent(f *testing.F) {
	addFixtures(f, "link.jsonl")
	f.Fuzz(func(t *testing.T, text []byte) {
		checkLine(t, text, true, map[string]string{"message": "from_peer", "peer_connected": "peer_id",
			"peer_disconnected": "peer_id", "peer_list": "", "ready": "", "signaling": "", "error": "",
			"pause": "peer_id", "resume": "peer_id", "cancel": "from_peer", "drained": "", "pong": "",
			"listening": "", "stream": "", "stream_end": "", "stream_stop": "", "stats": "", "path": "peer_id", "card": "peer_id"})
	})
}

// checkLocal compares the argument of local with its text.
func checkLocal(t *testing.T, text json.RawMessage, got *wire.Local) {
	t.Helper()
	if (got == nil) != (string(text) == "null") {
		t.Fatalf("%q: %v", text, got)
	}
	if got == nil {
		return
	}
	object := members(t, text, "socket", "ticket", "secret", "streams")
	streams := false
	if err := json.Unmarshal(orNull(object["streams"]), &streams); err != nil || got.Streams != streams {
		t.Fatalf("streams %v, want %v (%v)", got.Streams, streams, err)
	}
	for name, value := range map[string]string{"socket": got.Socket, "ticket": got.Ticket, "secret": got.Secret} {
		want := ""
		if err := json.Unmarshal(orNull(object[name]), &want); err != nil || value != want {
			t.Fatalf("%s %q, want %q (%v)", name, value, want, err)
		}
	}
}

// checkCard compares a card with the text of the value that it is from.
func checkCard(t *testing.T, text, card []byte) {
	t.Helper()
	if text == nil || string(text) == "null" {
		text = nil
	}
	if string(card) != string(text) || text != nil && (text[0] != '{' || len(text) > wire.MaxCard) {
		t.Fatalf("card %q, want %q", card, text)
	}
}

func FuzzParsePeerLine(f *testing.F) {
	addFixtures(f, "peerlink.jsonl")
	f.Fuzz(func(t *testing.T, text []byte) {
		var p wire.PeerLine
		if !checkVerdict(t, text, "{[", wire.ParsePeerLine(text, fuzzLimits, &p)) {
			return
		}
		trimmed := bytes.Trim(text, " \t\r\n")
		if trimmed[0] == '{' {
			if p.Kind != wire.PeerMessage {
				t.Fatalf("%q: an object is %v", text, p.Kind)
			}
			checkMessage(t, &p.Message, trimmed)
			return
		}
		var list []json.RawMessage
		if err := json.Unmarshal(text, &list); err != nil || len(list) == 0 {
			t.Fatalf("%q accepted: %v", text, err)
		}
		var name string
		if err := json.Unmarshal(list[0], &name); err != nil || list[0][0] != '"' {
			t.Fatalf("%q accepted: %v", text, err)
		}
		kinds := map[string]wire.PeerKind{"hello": wire.PeerHello, "cancel": wire.PeerCancel,
			"pause": wire.PeerPause, "resume": wire.PeerResume, "drain": wire.PeerDrain, "drained": wire.PeerDrained,
			"member": wire.PeerMember, "streams": wire.PeerStreams, "card": wire.PeerCard, "local": wire.PeerLocal,
			"moved": wire.PeerMoved, "followed": wire.PeerFollowed}
		if p.Kind != kinds[name] {
			t.Fatalf("%q is %v", text, p.Kind)
		}
		switch p.Kind {
		case wire.PeerCancel:
			checkText(t, "request_id", p.RequestID, list[1])
		case wire.PeerDrain, wire.PeerDrained:
			var want int
			if err := json.Unmarshal(list[1], &want); err != nil || p.Number != want || want < 0 || list[1][0] == 'n' {
				t.Fatalf("%s: number %d, want %d (%v)", list[1], p.Number, want, err)
			}
		case wire.PeerMember:
			checkMembership(t, list[1], p.Member)
		case wire.PeerCard:
			checkCard(t, list[1], p.Card)
		case wire.PeerLocal:
			checkLocal(t, list[1], p.Local)
		case wire.PeerHello:
			checkCard(t, members(t, list[1], "card")["card"], p.Hello.Card)
			if id := p.Hello.Identity; id != nil {
				checkIdentity(t, members(t, list[1], "identity")["identity"], id)
			}
			object := members(t, list[1], "protocol", "max_message", "max_streams")
			numbers := map[string]int{"protocol": p.Hello.Protocol, "max_message": p.Hello.MaxMessage, "max_streams": p.Hello.MaxStreams}
			for name, got := range numbers {
				want := 0
				if err := json.Unmarshal(orNull(object[name]), &want); err != nil || got != want {
					t.Fatalf("%s %d, want %d (%v)", name, got, want, err)
				}
			}
		}
	})
}

func FuzzParseStreamLine(f *testing.F) {
	addFixtures(f, "stream.jsonl")
	f.Fuzz(func(t *testing.T, text []byte) {
		opened := wire.ParseStreamOpened(text) == nil
		service, err := wire.ParseStreamOpen(text)
		if err != nil && !opened {
			return
		}
		if err == nil && opened {
			t.Fatalf("%q is both", text)
		}
		var list []json.RawMessage
		if err := json.Unmarshal(text, &list); err != nil || len(list) == 0 {
			t.Fatalf("%q accepted: %v", text, err)
		}
		if opened {
			checkString(t, "name", "opened", list[0])
			return
		}
		checkString(t, "name", "open", list[0])
		checkString(t, "service", service, members(t, list[1], "service")["service"])
		if again, err := wire.ParseStreamOpen(bytes.TrimSpace(wire.AppendStreamOpen(nil, service))); again != service || err != nil {
			t.Fatalf("%q written is %q, %v", service, again, err)
		}
	})
}

// checkIdentity compares what was read of an identity with what encoding/json reads.
func checkIdentity(t *testing.T, raw json.RawMessage, id *wire.Identity) {
	t.Helper()
	object := members(t, raw, "mesh", "key", "sig", "member")
	if id.Mesh != nil {
		checkString(t, "mesh", *id.Mesh, object["mesh"])
	}
	for name, got := range map[string]string{"key": id.Key, "sig": id.Sig} {
		checkString(t, name, got, object[name])
	}
	if id.Member != nil {
		checkMembership(t, object["member"], id.Member)
	}
}

func checkMembership(t *testing.T, raw json.RawMessage, m *wire.Membership) {
	t.Helper()
	object := members(t, raw, "mesh", "peer_id", "key", "not_after", "sig")
	for name, got := range map[string]string{"mesh": m.Mesh, "peer_id": m.PeerID, "key": m.Key, "sig": m.Sig} {
		checkString(t, name, got, object[name])
	}
	var want int64
	if err := json.Unmarshal(orNull(object["not_after"]), &want); err != nil || m.NotAfter != want {
		t.Fatalf("not_after %d, want %d (%v)", m.NotAfter, want, err)
	}
}

func checkString(t *testing.T, name, got string, raw json.RawMessage) {
	t.Helper()
	var want string
	if err := json.Unmarshal(orNull(raw), &want); err != nil || got != want {
		t.Fatalf("%s %q, want %q (%v)", name, got, want, err)
	}
}

func orNull(v json.RawMessage) json.RawMessage {
	if v == nil {
		return json.RawMessage("null")
	}
	return v
}

// FuzzReader cuts a stream into pieces of any lengths. The lines are always those that a split at newlines
// gives. The text is repeated so that a short one, which the fuzzer handles quickly, fills buffers.
func FuzzReader(f *testing.F) {
	f.Add([]byte("a\nbb\r\n\n \n0123456789\n0123456789x\nlast"), uint16(1), []byte{1, 2, 3}, uint16(10))
	f.Add([]byte("\r\n\r\r\r\n"), uint16(0), []byte{0, 1}, uint16(0))
	f.Add([]byte("0123456789\n"), uint16(5_000), []byte{255, 7, 0, 200}, uint16(9))
	f.Add([]byte("0123456789"), uint16(5_000), []byte{0, 200}, uint16(50_000))
	f.Add([]byte("0123456789 \n abcdefgh"), uint16(5_000), []byte{0}, uint16(25))
	f.Add([]byte("\uFEFF\n"), uint16(1), []byte{1, 2}, uint16(0))
	f.Fuzz(func(t *testing.T, text []byte, repeat uint16, cuts []byte, limit uint16) {
		stream := bytes.Repeat(text, min(1+int(repeat), 1+(1<<17)/(1+len(text))))
		var want []string
		for line := range bytes.SplitSeq(bytes.TrimPrefix(stream, []byte("\uFEFF")), []byte("\n")) {
			line = bytes.TrimSuffix(line, []byte("\r"))
			switch {
			case len(line) > int(limit):
				want = append(want, "<too_large>")
			case len(bytes.Trim(line, " \t\r")) > 0:
				want = append(want, string(line))
			}
		}
		for name, src := range map[string]io.Reader{
			"whole":        bytes.NewReader(stream),
			"cut":          &cutter{text: stream, cuts: cuts},
			"cut, no rest": iotest.DataErrReader(&cutter{text: stream, cuts: cuts}),
		} {
			if got, err := readAll(t, src, int(limit)); err != io.EOF || !slices.Equal(got, want) {
				t.Fatalf("%s: %q, %v; want %q", name, got, err, want)
			}
		}
	})
}

// cutter reads text in pieces of the lengths in cuts, which are repeated; 0 means as much as possible.
type cutter struct {
	text, cuts []byte
	n          int
}

func (c *cutter) Read(p []byte) (int, error) {
	if len(c.text) == 0 {
		return 0, io.EOF
	}
	n := 1
	if len(c.cuts) > 0 {
		n = int(c.cuts[c.n%len(c.cuts)])
		if c.n++; n == 0 {
			n = 1 << 20
		}
	}
	n = copy(p, c.text[:min(n, len(c.text))])
	c.text = c.text[n:]
	return n, nil
}

// FuzzSplice is the attack of a hostile peer: all bytes that ParseMessage accepts from it become exactly one
// line, which is one message event from that peer with that message.
func FuzzSplice(f *testing.F) {
	for _, c := range fixtures(f, "peerlink.jsonl") {
		f.Add("peer-abc", []byte(c.Line))
	}
	f.Add("a\"}}\n{", []byte("{\n\"type\"\r:\"x\",\"payload\":\"\\n\\u000a\u2028\"\r\n}"))
	f.Add("é\u2028", []byte(`{"type":"x"},"from_peer":"other","message":{"type":"x"}`))
	f.Add("p", []byte(`{"type":"x","from_peer":"q","message":{},"type":"peer_disconnected"}`))
	f.Fuzz(func(t *testing.T, from string, text []byte) {
		var m wire.Message
		if err := wire.ParseMessage(text, fuzzLimits, &m); err != nil || from == "" || !utf8.ValidString(from) || len(from) > 1000 {
			return
		}
		stream := wire.AppendMessage(nil, from, m.Raw)
		stream = append(stream, wire.AppendPeerConnected(nil, "behind", "", nil)...)
		if n := bytes.Count(stream, []byte("\n")); n != 2 || bytes.IndexByte(stream, '\r') >= 0 {
			t.Fatalf("%d newlines in %q", n, stream)
		}
		r := wire.NewReader(bytes.NewReader(stream), fuzzLimits.MaxLine())
		line, err := r.ReadLine()
		if err != nil {
			t.Fatal(err)
		}
		var l wire.Line
		if err := wire.ParseEvent(line, fuzzLimits, &l); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if l.Type != wire.TypeMessage || string(l.Peer) != from || string(l.Message.RequestID) != string(m.RequestID) {
			t.Fatalf("%q is %v from %q", line, l.Type, l.Peer)
		}
		checkMessage(t, &l.Message, oneLine(m.Raw))
		// The agent's parser may be another one.
		event := decode(t, line).(map[string]any)
		payload := event["payload"].(map[string]any)
		if len(event) != 2 || event["type"] != "message" || len(payload) != 2 || payload["from_peer"] != from {
			t.Fatalf("forged: %q", line)
		}
		if want := decode(t, m.Raw); !reflect.DeepEqual(payload["message"], want) {
			t.Fatalf("message %v, want %v", payload["message"], want)
		}
		if line, err = r.ReadLine(); err != nil || !bytes.Contains(line, []byte("behind")) {
			t.Fatalf("next line %q, %v", line, err)
		}
		// The same towards the peer.
		var p wire.PeerLine
		line = wire.AppendPeerMessage(nil, m.Raw)
		if err := wire.ParsePeerLine(line[:len(line)-1], fuzzLimits, &p); err != nil || p.Kind != wire.PeerMessage ||
			!bytes.Equal(p.Message.Raw, oneLine(m.Raw)) {
			t.Fatalf("%q is %v, %v", line, p.Kind, err)
		}
	})
}
