package wire_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// Whatever is wherever in a string, of whatever length: it is read as encoding/json reads it, and the string ends where it does.
func TestAnythingAnywhereInStrings(t *testing.T) {
	things := []string{
		"", `\"`, `\\`, `\\\"`, `\\\\`, `\n`, `\u00e9`, `\ud83d\ude00`, "é", "日本", `"`, `\`, `\x`, `\u12`, "\x00", "\x1f", "\n", "\x7f", "\xff", "\xc3", "\xed\xa0\x80",
		strings.Repeat(`\n`, 3), strings.Repeat(`\"`, 40), strings.Repeat(`\\`, 33) + `\"`,
	}
	fill := func(n int) string { return strings.Repeat("x", n) }
	for _, thing := range things {
		for before := range 200 {
			for _, after := range []int{0, 1, 7, 8, 31, 32, 33, 200} {
				one := fill(before) + thing + fill(after)
				for _, text := range []string{one, one + thing + fill(5)} {
					checkInMessage(t, text)
				}
			}
		}
	}
}

func checkInMessage(t *testing.T, text string) {
	t.Helper()
	msg := []byte(fmt.Sprintf(`{"type":"t","payload":"%s","request_id":"r"}`, text))
	valid := json.Valid(msg) && utf8.Valid(msg)
	var got wire.Message
	err := wire.ParseMessage(msg, wire.Limits{}, &got)
	if (err == nil) != valid {
		t.Fatalf("%q: %v, valid is %v", text, err, valid)
	}
	if err != nil {
		return
	}
	for what, lim := range map[string]wire.Limits{"read": {}, "read again": wire.Limits{}.Checked()} {
		if err := wire.ParseMessage(msg, lim, &got); err != nil || string(got.RequestID) != "r" || string(got.Payload) != `"`+text+`"` {
			t.Fatalf("%q %s: %v, %q, %q", text, what, err, got.Payload, got.RequestID)
		}
	}
}

// The error says where the first thing is that is wrong.
func TestWhereStringsAreWrong(t *testing.T) {
	for at := range 300 {
		for _, wrong := range []string{"\x01", `\x`} {
			b := []byte(`"` + strings.Repeat("x", at) + wrong + strings.Repeat("y", 300) + "\x02" + `\z"`)
			if err := wire.Check(b, wire.Limits{}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("byte %d", at+1)) {
				t.Fatalf("%q at %d: %v", wrong, at+1, err)
			}
		}
	}
}
