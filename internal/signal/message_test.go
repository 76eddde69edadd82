package signal

import (
	"bufio"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
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
			if x.Name == "not JSON" {
				if err == nil {
					t.Fatal("no error")
				}
				return
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
		{"other case is another key", `{"type":"x","Type":1,"PEER_ID":2}`, ""},
		{"empty", ``, "not JSON"},
		{"two objects", `{"type":"x"}{"type":"x"}`, "not JSON"},
		{"list", `["type"]`, "not a JSON object"},
		{"string", `"type"`, "not a JSON object"},
		{"null", `null`, "not a JSON object"},
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
