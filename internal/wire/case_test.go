package wire_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// spellings returns names that encoding/json, and other readers that ignore case, take for name: in upper case,
// with an escape, and with each of its letters replaced by each other one that Unicode folds to the same.
func spellings(name string) []string {
	all := []string{strings.ToUpper(name), fmt.Sprintf(`\u%04x%s`, unicode.ToUpper(rune(name[0])), name[1:])}
	for i, letter := range name {
		for r := unicode.SimpleFold(letter); r != letter; r = unicode.SimpleFold(r) {
			all = append(all, name[:i]+string(r)+name[i+1:])
		}
	}
	return all
}

// A known field in another case shows readers that ignore case something else than those that do not: it is
// an error beside the field and instead of it.
func TestOtherCase(t *testing.T) {
	parse := map[string]func(string) error{
		"command": func(text string) error { return wire.ParseCommand([]byte(text), wire.Limits{}, new(wire.Line)) },
		"event":   func(text string) error { return wire.ParseEvent([]byte(text), wire.Limits{}, new(wire.Line)) },
		"peer line": func(text string) error {
			return wire.ParsePeerLine([]byte(text), wire.Limits{}, new(wire.PeerLine))
		},
		"message": func(text string) error {
			return wire.ParseMessage([]byte(text), wire.Limits{}, new(wire.Message))
		},
		"hello":     func(text string) error { _, err := wire.DecodeHello([]byte(text)); return err },
		"signaling": func(text string) error { _, err := wire.DecodeSignaling([]byte(text)); return err },
		"error":     func(text string) error { _, err := wire.DecodeErrorEvent([]byte(text)); return err },
		"peer_list": func(text string) error { _, err := wire.DecodePeerList([]byte(text)); return err },
	}
	for _, c := range []struct{ parser, text, keys string }{
		// In text, @ is where a further member may stand.
		{"command", `{"type":"send"@,"payload":{"target_peer":"a","message":{"type":"x"}}}`, "type payload"},
		{"command", `{"type":"send","payload":{"target_peer":"a","message":{"type":"x"}@}}`, "target_peer target_peer_id from_peer peer_id message request_id all except"},
		{"command", `{"type":"send","payload":{"target_peer":"a","message":{"type":"x"@}}}`, "type request_id source_agent target_agent payload"},
		{"command", `{"type":"broadcast","payload":{"message":{"type":"x"}@}}`, "except message"},
		{"event", `{"type":"message"@,"payload":{"from_peer":"a","message":{"type":"x"}}}`, "type payload"},
		{"event", `{"type":"message","payload":{"from_peer":"a","message":{"type":"x"}@}}`, "from_peer message"},
		{"event", `{"type":"peer_connected","payload":{"peer_id":"a"@}}`, "peer_id"},
		{"event", `{"type":"pause","payload":{"peer_id":"a"@}}`, "all"},
		{"peer line", `{"type":"x"@}`, "type request_id source_agent target_agent payload"},
		{"peer line", `["hello",{"protocol":1@}]`, "protocol max_message"},
		{"message", `{"type":"x"@}`, "type request_id source_agent target_agent payload"},
		{"hello", `{"protocol":1@}`, "protocol features max_message token"},
		{"signaling", `{"state":"connected"@}`, "state peer_id error code"},
		{"error", `{"code":"internal"@}`, "code message command target_peer request_id"},
		{"peer_list", `{"peers":[]@}`, "peers"},
	} {
		plain := strings.Replace(c.text, "@", "", 1)
		if err := parse[c.parser](plain); err != nil {
			t.Fatalf("%s: %s: %v", c.parser, plain, err)
		}
		for _, key := range strings.Fields(c.keys) {
			for _, name := range spellings(key) {
				text := strings.Replace(c.text, "@", `,"`+name+`":null`, 1)
				err := parse[c.parser](text)
				if code(t, err) != wire.CodeInvalidField || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), "case") {
					t.Errorf("%s: %s: %v, want invalid_field about %s", c.parser, text, err, key)
				}
			}
		}
	}
	// Instead of the field.
	for text, key := range map[string]string{
		`{"Type":"send","payload":{"target_peer":"a","message":{"type":"x"}}}`:       "type",
		`{"type":"send","payload":{"Target_Peer":"a","message":{"type":"x"}}}`:       "target_peer",
		`{"type":"send","payload":{"target_peer":"a","message":{"TYPE":"x"}}}`:       "type",
		`{"type":"send","payload":{"target_peer":"a","me\u017fsage":{"type":"x"}}}`:  "message",
		`{"type":"send","PAYLOAD":{"target_peer":"a","message":{"type":"x"}}}`:       "payload",
		`{"type":"cancel","payload":{"target_peer":"a","Request_Id":"1"}}`:           "request_id",
		`{"type":"pause","payload":{"peer_id":"a","ALL":true}}`:                      "all",
		`{"type":"broadcast","payload":{"message":{"type":"x"},"EXCEPT":["a"]}}`:     "except",
		`{"type":"broadcast","payload":{"message":{"type":"x"},"e\u0058cept":null}}`: "except",
	} {
		if err := parse["command"](text); code(t, err) != wire.CodeInvalidField || !strings.Contains(err.Error(), "case") {
			t.Errorf("%s: %v, want invalid_field about %s", text, err, key)
		}
	}
}

// What is the application's own stays untouched: other fields, and all that is inside of them and of payload.
func TestOtherCaseOfOthersFields(t *testing.T) {
	for _, text := range []string{
		`{"type":"x","Peer_ID":1,"FROM_PEER":2,"Message":3,"TOKEN":4,"Except":5}`,
		`{"type":"x","payload":{"Type":1,"TYPE":2,"type":3,"Request_ID":4}}`,
		`{"type":"x","more":{"Type":1,"Payload":{"PAYLOAD":2}},"typé":1,"types":2,"typ":3,"typ\u0131":4,"":5}`,
		`{"type":"x","` + strings.Repeat("T", 5000) + `":1,"` + strings.Repeat(`\u0054`, 5000) + `":1,"ſſſſſſſſſſſſſſſſſſſſ":1}`,
	} {
		var m wire.Message
		if err := wire.ParseMessage([]byte(text), wire.Limits{}, &m); err != nil || string(m.Raw) != text {
			t.Errorf("%.200s: %v", text, err)
		}
		var l wire.Line
		line := `{"type":"send","payload":{"target_peer":"a","message":` + text + `}}`
		if err := wire.ParseCommand([]byte(line), wire.Limits{}, &l); err != nil || string(l.Message.Raw) != text {
			t.Errorf("%.200s: %v", line, err)
		}
	}
	for _, text := range []string{
		`{"type":"send","Target_Peer":1,"payload":{"target_peer":"a","Type":1,"Payload":2,"Token":3,"message":{"type":"x"}}}`,
	} {
		if err := wire.ParseCommand([]byte(text), wire.Limits{}, new(wire.Line)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := wire.DecodePeerList([]byte(`{"Peer_ID":1,"peers":["a"],"Code":2}`)); err != nil {
		t.Error(err)
	}
}

// The name that encoding/json takes for a field is the one that the parsers refuse.
func FuzzOtherCase(f *testing.F) {
	for _, name := range []string{"Type", "TYPE", "ty\u0070e", "\u017fource_agent", "reque\u017ft_ID", "", "\xff", "to\u212aen"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		quoted, err := json.Marshal(name)
		if err != nil {
			t.Fatal(err)
		}
		var field struct {
			Type        *int `json:"type"`
			Payload     *int `json:"payload"`
			RequestID   *int `json:"request_id"`
			SourceAgent *int `json:"source_agent"`
			TargetAgent *int `json:"target_agent"`
		}
		if err := json.Unmarshal([]byte(`{`+string(quoted)+`:1}`), &field); err != nil {
			t.Fatal(err)
		}
		taken := field.Type != nil || field.Payload != nil || field.RequestID != nil || field.SourceAgent != nil || field.TargetAgent != nil
		exact := name == "type" || name == "payload" || name == "request_id" || name == "source_agent" || name == "target_agent"
		err = wire.ParseMessage([]byte(`{`+string(quoted)+`:"1","type":"x"}`), wire.Limits{}, new(wire.Message))
		if want := taken && (!exact || name == "type"); (err != nil) != want {
			t.Fatalf("%q: %v; encoding/json takes it for a field: %v", name, err, taken)
		}
	})
}
