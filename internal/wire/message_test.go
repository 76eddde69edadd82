package wire_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// code returns the code of a parser's error, "" for nil.
func code(t testing.TB, err error) wire.Code {
	t.Helper()
	if err == nil {
		return ""
	}
	var e *wire.Error
	if !errors.As(err, &e) || e.Code == "" || e.Text == "" || !strings.Contains(err.Error(), e.Text) {
		t.Fatalf("error %#v, want an *Error with code and text", err)
	}
	return e.Code
}

func TestParseMessage(t *testing.T) {
	const none = "\x00" // stands for an absent field; an empty one is not absent
	tests := []struct {
		name, text string
		want       [5]string // type, request_id, source_agent, target_agent, payload
	}{
		{"all fields", `{"type":"t","request_id":"r","source_agent":"s","target_agent":"g","payload":[1, 2]}`,
			[5]string{"t", "r", "s", "g", "[1, 2]"}},
		{"type only", `{"type":"t"}`, [5]string{"t", none, none, none, none}},
		{"empty strings", `{"type":"","request_id":""}`, [5]string{"", "", none, none, none}},
		{"null payload", `{"type":"t","payload":null}`, [5]string{"t", none, none, none, "null"}},
		{"escaped values", `{"type":"\u0074\n\ud83d\ude00\"\/","request_id":"\\"}`,
			[5]string{"t\n😀\"/", `\`, none, none, none}},
		{"escaped key", `{"\u0074y\u0070e":"t"}`, [5]string{"t", none, none, none, none}},
		{"lone surrogates", `{"type":"a\ud83db","request_id":"\ude00\ud83d\ud83d\ude00"}`,
			[5]string{"a\uFFFDb", "\uFFFD\uFFFD😀", none, none, none}},
		{"other members", `{"a":{"type":1,"type":2,"Type":3},"peer_id":1,"peer_id":2,"type":"t","Peer_ID":3}`,
			[5]string{"t", none, none, none, none}},
		{"white space", " \t\r\n{ \"type\" :\r\n\"t\"\t} \n", [5]string{"t", none, none, none, none}},
		{"numbers", `{"type":"t","payload":[0,-0,10,-1.5,1e5,1E+5,1e-5,0.0e0,1e400]}`,
			[5]string{"t", none, none, none, `[0,-0,10,-1.5,1e5,1E+5,1e-5,0.0e0,1e400]`}},
		{"containers", `{"type":"t","payload":{"a":[],"b":{},"c":[[],{}],"":{"":[{}]}}}`,
			[5]string{"t", none, none, none, `{"a":[],"b":{},"c":[[],{}],"":{"":[{}]}}`}},
		{"UTF-8", "{\"type\":\"é網😀\u2028\x7f\"}", [5]string{"é網😀\u2028\x7f", none, none, none, none}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var m wire.Message
			if err := wire.ParseMessage([]byte(test.text), wire.Limits{}, &m); err != nil {
				t.Fatal(err)
			}
			var got [5]string
			for i, f := range [...][]byte{m.Type, m.RequestID, m.SourceAgent, m.TargetAgent, m.Payload} {
				if got[i] = string(f); f == nil {
					got[i] = none
				}
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if want := strings.Trim(test.text, " \t\r\n"); string(m.Raw) != want {
				t.Errorf("raw %q, want %q", m.Raw, want)
			}
		})
	}
}

func TestParseMessageErrors(t *testing.T) {
	const malformed, field = wire.CodeMalformed, wire.CodeInvalidField
	tests := []struct {
		text string
		code wire.Code
		says string // the field and the offset
	}{
		{``, malformed, "end, want a JSON object at byte 0"},
		{` `, malformed, "at byte 1"},
		{`[]`, malformed, `"["`},
		{"\xef\xbb\xbf{\"type\":\"t\"}", malformed, "at byte 0"}, // a byte order mark
		{`{`, malformed, "want a key at byte 1"},
		{`{"type"`, malformed, "want ':' at byte 7"},
		{`{"type" "t"}`, malformed, "want ':' at byte 8"},
		{`{"type":}`, malformed, "want a value at byte 8"},
		{`{"type":"t",}`, malformed, "want a key at byte 12"},
		{`{"type":"t" "a":1}`, malformed, "want ',' or '}' at byte 12"},
		{`{,"type":"t"}`, malformed, "at byte 1"},
		{`{"type":"t"`, malformed, "at byte 11"},
		{`{"type":"t"]`, malformed, "at byte 11"},
		{`{"type":"t"}x`, malformed, "want the end at byte 12"},
		{`{"type":"t"}{"type":"t"}`, malformed, "want the end at byte 12"},
		{"{\"type\":\"t\"}\x00", malformed, "at byte 12"},
		{"{\"type\":\x00\"t\"}", malformed, "at byte 8"},
		{"{\"type\":\v\"t\"}", malformed, "at byte 8"},
		{"{\"type\":\u00a0\"t\"}", malformed, "at byte 8"},
		{`{type:"t"}`, malformed, "want a key at byte 1"},
		{`{'type':"t"}`, malformed, "want a key at byte 1"},
		{`{"type":"t","p":[1,]}`, malformed, "at byte 19"},
		{`{"type":"t","p":[,1]}`, malformed, "at byte 17"},
		{`{"type":"t","p":[1 2]}`, malformed, "want ',' or ']' at byte 19"},
		{`{"type":"t","p":[1}}`, malformed, "want ',' or ']' at byte 18"},
		{`{"type":"t","p":{"a":1]}`, malformed, "want ',' or '}' at byte 22"},
		{`{"type":"t","p":{"a"}}`, malformed, "want ':' at byte 20"},
		{`{"type":"t","p":{"a":1,}}`, malformed, "want a key at byte 23"},
		{`{"type":"t","p":{1:1}}`, malformed, "want a key at byte 17"},
		{`{"type":"t","p":[[[]`, malformed, "unexpected end"},
		{`{"type":"t","p":tru}`, malformed, "at byte 16"},
		{`{"type":"t","p":truex}`, malformed, "at byte 20"},
		{`{"type":"t","p":True}`, malformed, "at byte 16"},
		{`{"type":"t","p":nul`, malformed, "at byte 16"},
		{`{"type":"t","p":01}`, malformed, "at byte 17"},
		{`{"type":"t","p":+1}`, malformed, "at byte 16"},
		{`{"type":"t","p":.5}`, malformed, "at byte 16"},
		{`{"type":"t","p":1.}`, malformed, "want a digit at byte 18"},
		{`{"type":"t","p":-}`, malformed, "want a digit at byte 17"},
		{`{"type":"t","p":1e}`, malformed, "want a digit at byte 18"},
		{`{"type":"t","p":1e+}`, malformed, "want a digit at byte 19"},
		{`{"type":"t","p":-Infinity}`, malformed, "at byte 17"},
		{`{"type":"t","p":0x1}`, malformed, "at byte 17"},
		{`{"type":"t","p":1/**/}`, malformed, "at byte 17"},
		{`{"type":"t`, malformed, "unterminated string at byte 10"},
		{`{"type":"t\`, malformed, "bad escape in a string at byte 10"},
		{`{"type":"t\"`, malformed, "unterminated"},
		{`{"type":"\x41"}`, malformed, "bad escape in a string at byte 9"},
		{`{"type":"\u12g4"}`, malformed, "bad escape in a string at byte 9"},
		{`{"type":"\u123"}`, malformed, "bad escape in a string at byte 9"},
		{"{\"type\":\"a\nb\"}", malformed, "control character in a string at byte 10"},
		{"{\"type\":\"abcdefghijk\x1flmnopqrst\"}", malformed, "control character in a string at byte 20"},
		{"{\"type\":\"\x00\"}", malformed, "control character in a string at byte 9"},
		{"{\"ty\tpe\":\"\"}", malformed, "control character in a string at byte 4"},
		{"{\"type\":\"é\xff\"}", malformed, "invalid UTF-8 at byte 11"},
		{"{\"type\":\"\xc0\x80\"}", malformed, "invalid UTF-8 at byte 9"},         // overlong
		{"{\"type\":\"\xed\xa0\x80\"}", malformed, "invalid UTF-8 at byte 9"},     // surrogate
		{"{\"type\":\"\xf4\x90\x80\x80\"}", malformed, "invalid UTF-8 at byte 9"}, // above U+10FFFF
		{"{\"type\":\"\xe7\xb6\"}", malformed, "invalid UTF-8 at byte 9"},         // cut short
		{"{\"type\":\"t\",\"p\":{\"\xff\":1}}", malformed, "invalid UTF-8 at byte 18"},
		{`{}`, field, "type: missing"},
		{`{"type":7}`, field, "type: want a string at byte 8"},
		{`{"type":null}`, field, "type: want a string"},
		{`{"type":{"type":"t"}}`, field, "type: want a string"},
		{`{"type":"t","type":"t"}`, field, "type: present twice at byte 19"},
		{`{"type":"t","\u0074ype":"t"}`, field, "type: present twice"},
		{`{"type":"t","request_id":null}`, field, "request_id: want a string at byte 25"},
		{`{"type":"t","source_agent":1}`, field, "source_agent: want a string"},
		{`{"type":"t","target_agent":[]}`, field, "target_agent: want a string"},
		{`{"type":"t","payload":1,"payload":1}`, field, "payload: present twice at byte 34"},
		{`{"type":7,"p":}`, malformed, "at byte 14"}, // takes precedence over the type
	}
	for _, test := range tests {
		t.Run(test.text, func(t *testing.T) {
			var m wire.Message
			err := wire.ParseMessage([]byte(test.text), wire.Limits{}, &m)
			if got := code(t, err); got != test.code || !strings.Contains(fmt.Sprint(err), test.says) {
				t.Errorf("%v, want %s: ...%s...", err, test.code, test.says)
			}
		})
	}
}

// TestStringLengths puts special bytes at every distance from the end, because the scanner reads strings
// eight bytes at a time, and long ones 32.
func TestStringLengths(t *testing.T) {
	lengths := func(yield func(int) bool) {
		for n := 0; n < 240 && yield(n); n++ {
			if n == 20 {
				n = 120
			}
		}
	}
	for before := range lengths {
		for after := range 40 {
			for _, test := range []struct {
				middle string
				ok     bool
			}{
				{"", true}, {`\"`, true}, {`\\`, true}, {`\u0041`, true}, {"é", true}, {"😀", true}, {"!", true}, {" ", true},
				{"\x7f", true}, {"]", true}, {"[", true}, {"#", true},
				{"\x1f", false}, {"\x00", false}, {"\x80", false}, {"\xff", false}, {`"`, false}, {`\`, false},
				{"\xa2", false}, {"\xdc", false}, {"\xa2\xdc", false}, // '"' and '\\' with their high bits set
			} {
				text := fmt.Sprintf(`{"type":"%s%s%s"}`, strings.Repeat("a", before), test.middle, strings.Repeat("b", after))
				if test.middle == `\` {
					text = strings.ReplaceAll(text, "b", "q") // \b is an escape, \q is not
					if after == 0 {
						continue // `\"` is an escape as well
					}
				}
				if test.middle == `"` && after == 0 {
					text = strings.Replace(text, `""}`, `"",}`, 1)
				}
				var m wire.Message
				if err := wire.ParseMessage([]byte(text), wire.Limits{}, &m); (err == nil) != test.ok {
					t.Fatalf("%q: %v", text, err)
				}
			}
		}
	}
}

func TestMessageLimits(t *testing.T) {
	nested := func(depth int) []byte {
		return []byte(`{"type":"t","payload":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + `}`)
	}
	objects := func(depth int) []byte {
		return []byte(`{"type":"t","payload":` + strings.Repeat(`{"a":`, depth-1) + "1" + strings.Repeat("}", depth-1) + `}`)
	}
	mixed := func(depth int) []byte {
		return []byte(`{"type":"t","x":` + strings.Repeat(`[0,{"a":`, depth/2) + "1" + strings.Repeat("}]", depth/2) + `}`)
	}
	long := func(size int) []byte {
		const rest = len(`{"type":"t","payload":""}`)
		return []byte("  " + `{"type":"t","payload":"` + strings.Repeat("x", size-rest) + `"}` + "\n\n")
	}
	tests := []struct {
		name string
		text []byte
		lim  wire.Limits
		code wire.Code
	}{
		{"default depth", nested(512), wire.Limits{}, ""},
		{"default depth exceeded", nested(513), wire.Limits{}, wire.CodeTooDeep},
		{"objects", objects(512), wire.Limits{}, ""},
		{"objects exceeded", objects(513), wire.Limits{}, wire.CodeTooDeep},
		{"mixed", mixed(511), wire.Limits{}, ""},
		{"small depth", nested(3), wire.Limits{MaxDepth: 3}, ""},
		{"small depth exceeded", nested(4), wire.Limits{MaxDepth: 3}, wire.CodeTooDeep},
		{"depth 1", []byte(`{"type":"t"}`), wire.Limits{MaxDepth: 1}, ""},
		{"depth 1 exceeded", []byte(`{"type":"t","payload":{}}`), wire.Limits{MaxDepth: 1}, wire.CodeTooDeep},
		{"great depth", mixed(100_001), wire.Limits{MaxDepth: 100_001}, ""},
		{"great depth exceeded", mixed(100_002), wire.Limits{MaxDepth: 100_001}, wire.CodeTooDeep},
		{"wrong closer far down", []byte(strings.Replace(string(mixed(5000)), "}]", "]}", 1)),
			wire.Limits{MaxDepth: 10_000}, wire.CodeMalformed},
		{"length", long(1000), wire.Limits{MaxMessage: 1000}, ""},
		{"length exceeded", long(1001), wire.Limits{MaxMessage: 1000}, wire.CodeTooLarge},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var m wire.Message
			if err := wire.ParseMessage(test.text, test.lim, &m); code(t, err) != test.code {
				t.Errorf("%v, want code %q", err, test.code)
			}
		})
	}
}

// TestHostileNesting would overflow the stack of a scanner that recurses.
func TestHostileNesting(t *testing.T) {
	for _, open := range []string{"[", `{"a":`, `[{"":`} {
		for _, test := range []struct {
			lim   wire.Limits
			times int
			code  wire.Code
		}{
			{wire.Limits{}, 2 << 20, wire.CodeTooDeep},
			{wire.Limits{MaxDepth: 1 << 30}, 200_000, wire.CodeMalformed}, // because it is never closed
		} {
			text := []byte(`{"type":"t","payload":` + strings.Repeat(open, test.times))
			var m wire.Message
			if err := wire.ParseMessage(text, test.lim, &m); code(t, err) != test.code {
				t.Errorf("%s...: %v, want code %q", open, err, test.code)
			}
		}
	}
}

func TestAppendMessageFields(t *testing.T) {
	tests := []struct {
		fields wire.MessageFields
		want   string
	}{
		{wire.MessageFields{}, `{"type":""}`},
		{wire.MessageFields{Type: "ping"}, `{"type":"ping"}`},
		{wire.MessageFields{Type: "x", RequestID: "r", SourceAgent: "s", TargetAgent: "t", Payload: []byte(`{"a":1}`)},
			`{"type":"x","request_id":"r","source_agent":"s","target_agent":"t","payload":{"a":1}}`},
		{wire.MessageFields{Type: "x", Timeout: 1500*time.Millisecond - 1, Meta: map[string]string{"b": "\"", "a": ""}, Payload: []byte(`0`)},
			`{"type":"x","timeout_ms":1500,"meta":{"a":"","b":"\""},"payload":0}`},
		{wire.MessageFields{Type: "\"\\\n\r\t\x00\x1f<é>\xff"}, `{"type":"\"\\\n\r\t\u0000\u001f<é>` + "\uFFFD" + `"}`},
	}
	for _, test := range tests {
		got := wire.AppendMessageFields([]byte("before"), test.fields)
		if string(got) != "before"+test.want {
			t.Errorf("got %s, want %s", got, test.want)
		}
		var m wire.Message
		if err := wire.ParseMessage([]byte(test.want), wire.Limits{}, &m); err != nil {
			t.Error(err)
		}
		back := wire.MessageFields{Type: string(m.Type), RequestID: string(m.RequestID),
			SourceAgent: string(m.SourceAgent), TargetAgent: string(m.TargetAgent), Payload: m.Payload,
			Meta: wire.DecodeMeta(m.Meta), Timeout: m.Timeout}
		test.fields.Timeout = test.fields.Timeout.Round(time.Millisecond)
		test.fields.Type = strings.ToValidUTF8(test.fields.Type, "\uFFFD")
		if !reflect.DeepEqual(back, test.fields) {
			t.Errorf("read back %+v, want %+v", back, test.fields)
		}
	}
}

// TestCheck: as a baseline, Check must do all that a parser does.
func TestCheck(t *testing.T) {
	for _, text := range []string{`{}`, ` [1, {"a": "b\n"}] `, `"café"`, `-1.5e3`, `null`} {
		if err := wire.Check([]byte(text), wire.Limits{}); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{``, `{`, `[1,]`, `{"a" 1}`, `01`, "\"\xff\"", "\"\n\"", `{} {}`, strings.Repeat("[", 600) + strings.Repeat("]", 600)} {
		if err := wire.Check([]byte(text), wire.Limits{}); err == nil {
			t.Errorf("%.20s: no error", text)
		}
	}
}
