package wire_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// fuzzDecode compares the decoder of a rare line's payload with encoding/json, whose result for an accepted
// payload is the same. The fixtures' payloads of the types are seeds.
func fuzzDecode[T any](f *testing.F, decode func([]byte) (T, error), known []string, types ...string) {
	for _, c := range fixtures(f, "link.jsonl") {
		var line struct {
			Type    string
			Payload json.RawMessage
		}
		for _, typ := range types {
			if json.Unmarshal([]byte(c.Line), &line) == nil && line.Type == typ {
				f.Add([]byte(line.Payload))
			}
		}
	}
	for _, name := range known {
		f.Add([]byte(`{"` + name + `":1,"` + name + `":null}`))
		f.Add([]byte(`{"` + name[:1] + `\u00` + `5f` + name[1:] + `":["a","\ud800",7]}`))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := decode(text)
		if !checkVerdict(t, text, "{", err) {
			return
		}
		members(t, text, known...)
		var want T
		if err := json.Unmarshal(text, &want); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %+v, want %+v (%v)", text, got, want, err)
		}
	})
}

func FuzzDecodeHello(f *testing.F) {
	decode := func(text []byte) (wire.Hello, error) {
		h, err := wire.DecodeHello(text)
		h.Card = nil // FuzzDecodeCard has it
		return h, err
	}
	fuzzDecode(f, decode, []string{"protocol", "features", "max_message", "token", "policy"}, "hello", "ready")
}

func FuzzDecodeCard(f *testing.F) {
	type payload struct {
		Card json.RawMessage `json:"card"`
	}
	decode := func(text []byte) (p payload, err error) {
		if p.Card, err = wire.DecodeCard(text); err != nil {
			return p, err
		}
		if p.Card == nil {
			_ = json.Unmarshal(text, &p) // absent or null
			if p.Card != nil && string(p.Card) != "null" {
				return p, errors.New("a card was overlooked")
			}
		} else if err := wire.CheckCard(p.Card); err != nil {
			return p, err
		}
		return p, nil
	}
	fuzzDecode(f, decode, []string{"card"}, "card")
}

func FuzzDecodeSignaling(f *testing.F) {
	fuzzDecode(f, wire.DecodeSignaling, []string{"state", "peer_id", "error", "code"}, "signaling")
}

func FuzzDecodeErrorEvent(f *testing.F) {
	fuzzDecode(f, wire.DecodeErrorEvent, []string{"code", "message", "command", "target_peer", "request_id"}, "error")
}

func FuzzDecodePeerList(f *testing.F) {
	fuzzDecode(f, wire.DecodePeerList, []string{"peers", "keys"}, "peer_list")
}

func FuzzDecodeStats(f *testing.F) {
	fuzzDecode(f, wire.DecodeStats, []string{"peers", "dropped"}, "stats")
}

func FuzzDecodePath(f *testing.F) {
	fuzzDecode(f, wire.DecodePath, []string{"peer_id", "path", "local", "remote"}, "path")
}

// FuzzPeerHello passes any text as the argument of a peer's hello.
func FuzzPeerHello(f *testing.F) {
	for _, text := range []string{`{"protocol":1,"max_message":16777216}`, `{}`, `null`, `{"max_message":-1}`, `{"protocol":1e3}`,
		`{"protocol":1,"Protocol":2}`, `{"max_message":9223372036854775808}`, `{"later":{"protocol":[1]}},7`, `{}],["hello"`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, argument []byte) {
		line := append(append([]byte(`["hello",`), argument...), ']')
		var p wire.PeerLine
		if !checkVerdict(t, line, "[", wire.ParsePeerLine(line, fuzzLimits, &p)) {
			return
		}
		var list []json.RawMessage
		if err := json.Unmarshal(line, &list); err != nil || p.Kind != wire.PeerHello || len(list) < 2 {
			t.Fatalf("%q is %v (%v)", line, p.Kind, err)
		}
		members(t, list[1], "protocol", "max_message", "identity")
		var want struct {
			Protocol   int `json:"protocol"`
			MaxMessage int `json:"max_message"`
		}
		if err := json.Unmarshal(list[1], &want); err != nil || p.Hello.Protocol != want.Protocol || p.Hello.MaxMessage != want.MaxMessage || min(want.Protocol, want.MaxMessage) < 0 {
			t.Fatalf("%q: %d, %d; want %+v (%v)", line, p.Hello.Protocol, p.Hello.MaxMessage, want, err)
		}
	})
}
