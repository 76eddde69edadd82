package wire_test

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh/internal/wire"
)

func TestCheckBase(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("[", n-1) + strings.Repeat("]", n-1) }
	for _, c := range []struct {
		payload string
		code    wire.Code
	}{
		{`"plain \\\" \u00e9 é"`, ""},
		{`"\ud83d\ude00 \uD83D\uDE00"`, ""},
		{`"\ud83d"`, wire.CodeMalformed},
		{`"\ude00"`, wire.CodeMalformed},
		{`"\ud83d\\ude00"`, wire.CodeMalformed},
		{`"\ud83dx\ude00"`, wire.CodeMalformed},
		{`"\\ud83d"`, ""},
		{`{"\ud83d":1}`, wire.CodeMalformed},
		{`[0,-1,1.5e3,1E-9,18446744073709551616]`, ""},
		{strconv.FormatFloat(math.MaxFloat64, 'f', -1, 64), ""},
		{"1" + strings.Repeat("0", 309), wire.CodeMalformed},
		{strings.Repeat("1", 5000), wire.CodeMalformed},
		{"0." + strings.Repeat("1", 5000), ""},
		{`1e308`, ""},
		{`-1e309`, wire.CodeMalformed},
		{`1e-400`, ""},
		{nested(wire.BaseMaxDepth), ""},
		{nested(wire.BaseMaxDepth + 1), wire.CodeTooDeep},
		{`"` + strings.Repeat("[", 1000) + `"`, ""},
	} {
		msg := `{"type":"x","payload":` + c.payload + "}"
		var m wire.Message
		if err := wire.ParseMessage([]byte(msg), wire.Limits{}, &m); err != nil {
			t.Fatalf("%.60s is no valid message: %v", msg, err)
		}
		err := wire.CheckBase([]byte(msg))
		var bad *wire.Error
		switch {
		case c.code == "" && err != nil:
			t.Errorf("%.60s: %v", msg, err)
		case c.code != "" && (!errors.As(err, &bad) || bad.Code != c.code):
			t.Errorf("%.60s: got %v, want %s", msg, err, c.code)
		}
	}
}

// Go types, like those of base parties, can hold all that passes.
func FuzzCheckBase(f *testing.F) {
	for _, s := range []string{`{"type":"x"}`, `{"type":"x","payload":[1e400,"\ud800"]}`, `{"type":"x","payload":"\ud83d\ude00"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		var m wire.Message
		if wire.ParseMessage(msg, wire.Limits{}, &m) != nil {
			return
		}
		var v any
		if wire.CheckBase(msg) == nil && json.Unmarshal(msg, &v) != nil {
			t.Errorf("%q passes and cannot be decoded", msg)
		}
	})
}
