package wire_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// fixture is one line of docs/fixtures.
type fixture struct {
	Name, From, To, Expect, Line string
	Base                         bool
}

func fixtures(t testing.TB, file string) []fixture {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "fixtures", file))
	if err != nil {
		t.Fatal(err)
	}
	var list []fixture
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, len(text)+1)
	for lines.Scan() {
		var f fixture
		if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
			t.Fatalf("%s: %v: %s", file, err, lines.Bytes())
		}
		list = append(list, f)
	}
	if len(list) == 0 {
		t.Fatalf("%s: no cases", file)
	}
	return list
}

func TestLinkFixtures(t *testing.T) {
	for _, f := range fixtures(t, "link.jsonl") {
		t.Run(f.From+"/"+f.Name, func(t *testing.T) {
			parse := wire.ParseCommand
			if f.To == "agent" {
				parse = wire.ParseEvent
			}
			var l wire.Line
			// A valid line after it shows that the stream goes on.
			r := wire.NewReader(strings.NewReader(f.Line+"\n"+`{"type":"list_peers"}`+"\n"), wire.Limits{}.MaxLine())
			line, err := r.ReadLine()
			if err != nil {
				t.Fatal(err)
			}
			if strings.TrimSpace(f.Line) == "" {
				if f.Expect != "ignore" || string(line) != `{"type":"list_peers"}` {
					t.Fatalf("read %q", line)
				}
				return
			}
			err = parse(line, wire.Limits{}, &l)
			switch f.Expect {
			case "ok":
				if err != nil {
					t.Fatal(err)
				}
				checkLinkWriter(t, f, &l)
			case "ignore":
				if err != nil || l.Type != wire.TypeUnknown {
					t.Fatalf("type %v, error %v; want it ignored", l.Type, err)
				}
			case "error":
				var bad *wire.Error
				if !errors.As(err, &bad) || bad.Code == "" || bad.Text == "" {
					t.Fatalf("error %v, want an *Error", err)
				}
				t.Log(err)
			default:
				t.Fatalf("unknown expectation %q", f.Expect)
			}
			if next, err := r.ReadLine(); string(next) != `{"type":"list_peers"}` || err != nil {
				t.Fatalf("next line: %q, %v", next, err)
			}
		})
	}
}

// checkLinkWriter encodes a parsed line again and compares the objects.
func checkLinkWriter(t *testing.T, f fixture, l *wire.Line) {
	t.Helper()
	written := relink(t, f.To == "agent", l)
	if n := bytes.Count(written, []byte("\n")); n != 1 || written[len(written)-1] != '\n' {
		t.Fatalf("%d newlines in %q", n, written)
	}
	want, got := envelope(t, []byte(f.Line)), envelope(t, written)
	if !reflect.DeepEqual(want, got) {
		t.Fatalf("wrote %s\nfor   %s", written, f.Line)
	}
	if l.Message.Raw == nil {
		return
	}
	if !strings.Contains(f.Line, string(l.Message.Raw)) {
		t.Fatalf("message %q is not part of the line", l.Message.Raw)
	}
	if !bytes.Contains(written, oneLine(l.Message.Raw)) {
		t.Fatalf("message %q did not keep its bytes: %q", l.Message.Raw, written)
	}
}

// relink encodes a parsed line with the Append function of its type.
func relink(t *testing.T, event bool, l *wire.Line) []byte {
	t.Helper()
	peer := string(l.Peer)
	switch l.Type {
	case wire.TypeSend:
		return wire.AppendSend(nil, peer, l.Message.Raw)
	case wire.TypeBroadcast:
		return wire.AppendBroadcast(nil, l.Message.Raw, must(wire.DecodeStrings(l.Except))(t))
	case wire.TypeListPeers:
		return wire.AppendListPeers(nil)
	case wire.TypeConnect:
		return wire.AppendConnect(nil, peer)
	case wire.TypeMessage:
		return wire.AppendMessage(nil, peer, l.Message.Raw)
	case wire.TypePeerConnected:
		key, card, err := wire.DecodePeerConnected(l.Payload)
		return wire.AppendPeerConnected(nil, peer, key, must(card, err)(t))
	case wire.TypeCard:
		card := must(wire.DecodeCard(l.Payload))(t)
		if event {
			return wire.AppendCardEvent(nil, peer, card)
		}
		return wire.AppendCardCommand(nil, card)
	case wire.TypePeerDisconnected:
		return wire.AppendPeerDisconnected(nil, peer)
	case wire.TypePeerList:
		return wire.AppendPeerList(nil, must(wire.DecodePeerList(l.Payload))(t))
	case wire.TypeHello:
		return wire.AppendHello(nil, must(wire.DecodeHello(l.Payload))(t))
	case wire.TypeReady:
		return wire.AppendReady(nil, must(wire.DecodeHello(l.Payload))(t))
	case wire.TypeSignaling:
		return wire.AppendSignaling(nil, must(wire.DecodeSignaling(l.Payload))(t))
	case wire.TypeError:
		return wire.AppendError(nil, must(wire.DecodeErrorEvent(l.Payload))(t))
	case wire.TypePause:
		return wire.AppendPause(nil, peer, l.Stop)
	case wire.TypeResume:
		return wire.AppendResume(nil, peer)
	case wire.TypeCancel:
		if event {
			return wire.AppendCancelEvent(nil, peer, string(l.RequestID))
		}
		return wire.AppendCancelCommand(nil, peer, string(l.RequestID))
	case wire.TypeDrain:
		return wire.AppendDrain(nil, must(wire.DecodeDrain(l.Payload))(t))
	case wire.TypeDrained:
		return wire.AppendDrained(nil, must(wire.DecodeUnsent(l.Payload))(t))
	case wire.TypePing:
		return wire.AppendPing(nil)
	case wire.TypePong:
		return wire.AppendPong(nil)
	case wire.TypePath:
		return wire.AppendPath(nil, must(wire.DecodePath(l.Payload))(t))
	case wire.TypeStats:
		if event {
			return wire.AppendStatsEvent(nil, must(wire.DecodeStats(l.Payload))(t))
		}
		return wire.AppendStatsCommand(nil)
	case wire.TypeListen, wire.TypeUnlisten, wire.TypeListening, wire.TypeRefuse, wire.TypeStream, wire.TypeStreamEnd, wire.TypeStreamStop:
		return wire.AppendStream(nil, l.Type, must(wire.DecodeStream(l.Payload))(t))
	}
	t.Fatalf("no writer for type %v", l.Type)
	return nil
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// envelope decodes a line into what a reader may use of it: a missing or null payload is an empty one,
// and unknown members do not count.
func envelope(t *testing.T, line []byte) any {
	t.Helper()
	object := decode(t, line).(map[string]any)
	payload, _ := object["payload"].(map[string]any)
	if payload == nil {
		payload = map[string]any{}
	}
	delete(payload, "later")
	return map[string]any{"type": object["type"], "payload": payload}
}

// decode decodes JSON and keeps numbers as written.
func decode(t testing.TB, text []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v: %q", err, text)
	}
	if _, err := d.Token(); err != io.EOF {
		t.Fatalf("more than one value: %q", text)
	}
	return v
}

func oneLine(message []byte) []byte {
	return []byte(strings.NewReplacer("\r", " ", "\n", " ").Replace(string(message)))
}

func TestPeerFixtures(t *testing.T) {
	for _, f := range fixtures(t, "peerlink.jsonl") {
		t.Run(f.Name, func(t *testing.T) {
			var p wire.PeerLine
			var err error
			if f.Base {
				p.Kind = wire.PeerMessage
				err = wire.ParseMessage([]byte(f.Line), wire.Limits{}, &p.Message)
			} else {
				err = wire.ParsePeerLine([]byte(f.Line), wire.Limits{}, &p)
			}
			switch f.Expect {
			case "ok":
				if err != nil {
					t.Fatal(err)
				}
				checkPeerWriter(t, f, &p)
			case "ignore":
				if err != nil || p.Kind != wire.PeerUnknown {
					t.Fatalf("kind %v, error %v; want it ignored", p.Kind, err)
				}
			case "error":
				var bad *wire.Error
				if !errors.As(err, &bad) || bad.Code == "" || bad.Text == "" {
					t.Fatalf("error %v, want an *Error", err)
				}
				t.Log(err)
			default:
				t.Fatalf("unknown expectation %q", f.Expect)
			}
		})
	}
}

func checkPeerWriter(t *testing.T, f fixture, p *wire.PeerLine) {
	t.Helper()
	var written []byte
	switch p.Kind {
	case wire.PeerMessage:
		written = wire.AppendPeerMessage(nil, p.Message.Raw)
		if want := string(oneLine([]byte(f.Line))) + "\n"; string(written) != want {
			t.Fatalf("wrote %q, want %q", written, want)
		}
	case wire.PeerHello:
		if p.Hello.Protocol != wire.ProtocolVersion {
			t.Fatalf("protocol %d", p.Hello.Protocol)
		}
		written = wire.AppendPeerHello(nil, p.Hello)
	case wire.PeerMember:
		written = wire.AppendPeerMember(nil, p.Member)
	case wire.PeerCancel:
		written = wire.AppendPeerCancel(nil, string(p.RequestID))
	case wire.PeerPause:
		written = wire.AppendPeerPause(nil, p.Stop == wire.StopOrdered)
	case wire.PeerResume:
		written = wire.AppendPeerResume(nil)
	case wire.PeerDrain:
		written = wire.AppendPeerDrain(nil, p.Number)
	case wire.PeerDrained:
		written = wire.AppendPeerDrained(nil, p.Number)
	case wire.PeerStreams:
		written = wire.AppendPeerStreams(nil)
	case wire.PeerCard:
		written = wire.AppendPeerCard(nil, p.Card)
	case wire.PeerLocal:
		written = wire.AppendPeerLocal(nil, p.Local)
	case wire.PeerMoved:
		written = wire.AppendPeerMoved(nil)
	case wire.PeerFollowed:
		written = wire.AppendPeerFollowed(nil)
	default:
		t.Fatalf("no writer for kind %v", p.Kind)
	}
	if n := bytes.Count(written, []byte("\n")); n != 1 || written[len(written)-1] != '\n' {
		t.Fatalf("%d newlines in %q", n, written)
	}
	want, got := decode(t, []byte(f.Line)), decode(t, written)
	if list, ok := want.([]any); ok && (p.Stop == wire.StopNewWork || p.Kind == wire.PeerResume) {
		want = list[:1] // what a later version may add to them
	}
	if !reflect.DeepEqual(want, got) {
		t.Fatalf("wrote %s\nfor   %s", written, f.Line)
	}
}

func TestStreamFixtures(t *testing.T) {
	for _, f := range fixtures(t, "stream.jsonl") {
		var err error
		if f.To == "opener" {
			err = wire.ParseStreamOpened([]byte(f.Line))
		} else {
			_, err = wire.ParseStreamOpen([]byte(f.Line))
		}
		var bad *wire.Error
		if f.Expect == "ok" && err != nil || f.Expect == "error" && (!errors.As(err, &bad) || bad.Code == "" || bad.Text == "") {
			t.Errorf("%s: %v", f.Name, err)
		}
	}
}

// TestFixtureErrors pins the error codes, which agents in other languages rely on.
func TestFixtureErrors(t *testing.T) {
	codes := map[string]wire.Code{
		"not JSON":                      wire.CodeMalformed,
		"truncated":                     wire.CodeMalformed,
		"array":                         wire.CodeMalformed,
		"two objects on a line":         wire.CodeMalformed,
		"NaN is not JSON":               wire.CodeMalformed,
		"control character in a string": wire.CodeMalformed,
		"no type":                       wire.CodeInvalidField,
		"type is a number":              wire.CodeInvalidField,
		"unknown type":                  wire.CodeUnknownType,
		"send without target":           wire.CodeInvalidField,
		"send, payload is an array":     wire.CodeInvalidField,
		"nested too deep":               wire.CodeTooDeep,
		"duplicate envelope key":        wire.CodeInvalidField,
		"source_agent is null":          wire.CodeInvalidField,
	}
	for _, f := range fixtures(t, "link.jsonl") {
		want, ok := codes[f.Name]
		if !ok {
			continue
		}
		delete(codes, f.Name)
		var l wire.Line
		var bad *wire.Error
		if err := wire.ParseCommand([]byte(f.Line), wire.Limits{}, &l); !errors.As(err, &bad) || bad.Code != want {
			t.Errorf("%s: %v, want %s", f.Name, err, want)
		}
	}
	for name := range codes {
		t.Errorf("no fixture called %q", name)
	}
}
