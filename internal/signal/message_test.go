package signal

import (
	"bufio"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// fixture is one line of the protocol's examples.
type fixture struct {
	Name, From, To, Expect, Line string
}

func fixtures(t testing.TB) []fixture {
	t.Helper()
	f, err := os.Open("../../docs/fixtures/signaling.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var all []fixture
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var x fixture
		if err := json.Unmarshal(sc.Bytes(), &x); err != nil {
			t.Fatal(err)
		}
		all = append(all, x)
	}
	if len(all) == 0 {
		t.Fatal("no fixtures")
	}
	return all
}

// TestFixturesRoundTrip reads every example and writes an equal object, payload included.
func TestFixturesRoundTrip(t *testing.T) {
	for _, x := range fixtures(t) {
		t.Run(x.Name, func(t *testing.T) {
			m, err := ParseMessage([]byte(x.Line))
			if x.Expect == "error" && err != nil {
				return // others are errors by what they say
			}
			if err != nil {
				t.Fatal(err)
			}
			m.Payload = rewrite(t, m)
			b, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			var got, want any
			if err := json.Unmarshal(b, &got); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(x.Line), &want); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("wrote %s\nwant  %s", b, x.Line)
			}
		})
	}
}

// rewrite passes a payload through its type.
func rewrite(t *testing.T, m Message) json.RawMessage {
	t.Helper()
	types := map[string]any{
		Offer: &Description{}, Answer: &Description{}, Candidate: &ICECandidate{},
		PeerList: &PeersPayload{}, ErrorType: &ErrorPayload{},
	}
	v, ok := types[m.Type]
	if !ok {
		return m.Payload
	}
	if err := json.Unmarshal(m.Payload, v); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseMessage(t *testing.T) {
	for _, c := range []struct{ name, text, err string }{
		{"minimal", `{"type":"x"}`, ""},
		{"unknown keys", ` {"a":{"type":1},"type":"x","b":[]} `, ""},
		{"null target", `{"type":"x","target_id":null}`, ""},
		{"other keys in any case", `{"type":"x","Peer":1,"peer-id":2,"TYPES":3,"payload":{"Type":4},"more":{"Peer_ID":5}}`, ""},
		{"another case beside it", `{"type":"x","peer_id":"a","Peer_ID":"b"}`, `peer_id: written in another case, "Peer_ID"`},
		{"another case instead of it", `{"type":"x","PEER_ID":"a"}`, "peer_id: written in another case"},
		{"another case by an escape", `{"type":"x","\u0050eer_id":"a"}`, "peer_id: written in another case"},
		{"another case of type", `{"Type":"x"}`, "type: written in another case"},
		{"another case of target_id", `{"type":"x","target_ID":"a"}`, "target_id: written in another case"},
		{"another case of payload", `{"type":"x","PAYLOAD":{}}`, "payload: written in another case"},
		{"empty", ``, "not JSON"},
		{"two objects", `{"type":"x"}{"type":"x"}`, "not JSON"},
		{"list", `["type"]`, "not a JSON object"},
		{"string", `"type"`, "not a JSON object"},
		{"null", `null`, "type: missing"},
		{"trailing comma", `{"type":"x",}`, "not JSON"},
		{"no type", `{"peer_id":"a"}`, "type: missing"},
		{"empty type", `{"type":""}`, "type: missing"},
		{"number as type", `{"type":1}`, "type: not a string"},
		{"object as peer_id", `{"type":"x","peer_id":{}}`, "peer_id: not a string"},
		{"list as target_id", `{"type":"x","target_id":[]}`, "target_id: not a string"},
		{"peer_id twice", `{"type":"x","peer_id":"a","peer_id":"b"}`, "peer_id: given twice"},
		{"peer_id twice, once escaped", `{"type":"x","peer_id":"a","peer\u005fid":"b"}`, "peer_id: given twice"},
		{"type twice", `{"type":"x","type":null}`, "type: given twice"},
		{"payload twice", `{"type":"x","payload":1,"payload":2}`, "payload: given twice"},
		{"not UTF-8", "{\"type\":\"x\",\"peer_id\":\"\xff\"}", "UTF-8"},
		{"deep", `{"type":"x","payload":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, "not JSON"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseMessage([]byte(c.text))
			if c.err == "" && err != nil {
				t.Fatal(err)
			}
			if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Fatalf("error %v, want one with %q", err, c.err)
			}
		})
	}
}

func TestParseMessageEscapedKey(t *testing.T) {
	m, err := ParseMessage([]byte(`{"\u0074ype":"\u006fffer","peer_id":"\u0061"}`))
	if err != nil || m.Type != Offer || m.PeerID != "a" {
		t.Fatalf("%+v, %v", m, err)
	}
}

// What readers take for a field, encoding/json among them, cannot differ from what Decode takes for it. U+017F is
// the long s, which folds to s.
func TestDecodeExactly(t *testing.T) {
	for text, want := range map[string]string{ // the error; "" for none
		`{"sdp":"v=0","caps":["jsonl"],"session":"s","instance":"i","answers":"a","later":{"SDP":1}}`: "",
		`{"sdp":"v=0","more":"SDP"}`:            "",
		`null`:                                  "",
		`{}`:                                    "",
		`{"sdp":"v=0","SDP":"other"}`:           `sdp: written in another case, "SDP"`,
		`{"\u017fdp":"v=0"}`:                    `sdp: written in another case, "\u017fdp"`,
		`{"sdp":"v=0","ſession":"s"}`:           `session: written in another case, "\u017fession"`,
		`{"sdp":"v=0","sdp":"other"}`:           "sdp: given twice",
		`{"sdp":"v=0","session":"a","Caps":[]}`: "caps: written in another case",
		`{"sdp":7}`:                             "sdp: not a string",
		`{"caps":"jsonl"}`:                      "caps: not a []string",
		`[]`:                                    "not a JSON object",
		`"sdp"`:                                 "not a JSON object",
		``:                                      "not JSON",
		`{"sdp":"v=0"}}`:                        "not JSON",
		`{"sdp":"v=0",}`:                        "not JSON",
		`{"sdp"}`:                               "not JSON",
		`{"a":` + strings.Repeat("[", 20000):    "not JSON",
	} {
		var d Description
		err := Decode([]byte(text), &d)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %q", text, err, want)
		}
	}
}

// exact fails if a reader that ignores case may see something else in an accepted object than one that does not.
func exact(t *testing.T, b []byte, err error, known ...string) {
	t.Helper()
	if err != nil {
		return
	}
	var plain map[string]json.RawMessage // numbers beyond a double are none of signaling's business
	if err := json.Unmarshal(b, &plain); err != nil {
		t.Fatalf("accepted %q: %v", b, err)
	}
	for key := range plain {
		for _, name := range known {
			if key != name && strings.EqualFold(key, name) {
				t.Fatalf("accepted %q, in which %q may be taken for %q", b, key, name)
			}
		}
	}
}

// FuzzParseMessage checks that whatever is accepted is what a plain reader that takes the first, exactly
// matching key sees too, and that it can be written again.
func FuzzParseMessage(f *testing.F) {
	for _, x := range fixtures(f) {
		f.Add([]byte(x.Line))
	}
	f.Add([]byte(`{"type":"offer","peer_id":"a","PEER_ID":"b","peer\u005fid":"c"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMessage(b)
		if err != nil {
			return
		}
		exact(t, b, err, "type", "peer_id", "target_id", "payload")
		var plain map[string]any
		if err := json.Unmarshal(b, &plain); err != nil {
			t.Fatalf("accepted %q: %v", b, err)
		}
		for key, got := range map[string]string{"type": m.Type, "peer_id": m.PeerID, "target_id": m.TargetID} {
			want, _ := plain[key].(string)
			if got != want {
				t.Fatalf("%q: %s = %q, want %q", b, key, got, want)
			}
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatalf("%q cannot be written: %v", b, err)
		}
		m2, err := ParseMessage(again)
		if err != nil || m2.Type != m.Type || m2.PeerID != m.PeerID || m2.TargetID != m.TargetID {
			t.Fatalf("%q became %q: %+v, %v", b, again, m2, err)
		}
	})
}

// fuzzDecode decodes any text as a payload. What is accepted reads the same for every reader.
func fuzzDecode[T any](f *testing.F, types ...string) {
	for _, x := range fixtures(f) {
		for _, typ := range types {
			if m, err := ParseMessage([]byte(x.Line)); err == nil && m.Type == typ {
				f.Add([]byte(m.Payload))
			}
		}
	}
	names := fieldNames(new(T))
	for _, name := range names {
		f.Add([]byte(`{"` + strings.ToUpper(name) + `":"x","` + name + `":["\ud800",7,null]}`))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var got, want, again T
		err := Decode(b, &got)
		if !utf8.Valid(b) {
			return // ParseMessage lets none of it through
		}
		exact(t, b, err, names...)
		if plain := json.Unmarshal(b, &want); err == nil && (plain != nil || !reflect.DeepEqual(got, want)) {
			t.Fatalf("%q: %+v, want %+v (%v)", b, got, want, plain)
		}
		if err != nil {
			return
		}
		text, err := json.Marshal(got)
		if err != nil || Decode(text, &again) != nil {
			t.Fatalf("%q became %q: %v", b, text, err)
		}
	})
}

func FuzzDecodeDescription(f *testing.F) { fuzzDecode[Description](f, Offer, Answer) }
func FuzzDecodeCandidate(f *testing.F)   { fuzzDecode[ICECandidate](f, Candidate) }
func FuzzDecodePeers(f *testing.F)       { fuzzDecode[PeersPayload](f, PeerList) }
func FuzzDecodeError(f *testing.F)       { fuzzDecode[ErrorPayload](f, ErrorType) }

func FuzzParseRegister(f *testing.F) {
	for _, x := range fixtures(f) {
		if m, err := ParseMessage([]byte(x.Line)); err == nil && m.Type == Register {
			f.Add([]byte(m.Payload))
		}
	}
	f.Add([]byte(`{"started":-1,"Started":1,"if_free":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseRegister(b)
		if len(b) > 0 {
			exact(t, b, err, "started", "if_free")
		}
		if err == nil && p.Started != nil && *p.Started < 0 {
			t.Fatalf("accepted %q: started %d", b, *p.Started)
		}
	})
}
