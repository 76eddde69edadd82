package signal_test

import (
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh/internal/signal"
)

func TestCheckURL(t *testing.T) {
	const schemes = "start it with ws:// or wss://"
	for _, c := range []struct{ raw, want string }{
		{"ws://h/ws", ""},
		{"wss://u:p@[::1]:8080/mesh/ws?x=1", ""},
		{"WS://h", ""},
		{"", "empty; " + schemes},
		{"localhost:8080/ws", schemes + `; did you mean "ws://localhost:8080/ws"?`},
		{"example.org/ws", `did you mean "ws://example.org/ws"?`},
		{"10.0.0.1:8080/ws", `did you mean "ws://10.0.0.1:8080/ws"?`},
		{"[::1]:8080/ws", `did you mean "ws://[::1]:8080/ws"?`},
		{"//example.org/ws", schemes},
		{"user:secret@example.org/ws?token=secret", `did you mean "ws://example.org/ws"?`},
		{"http://h/ws", `did you mean "ws://h/ws"?`},
		{"https://u:secret@h/ws?secret", `did you mean "wss://h/ws"?`},
		{"ftp://h/ws", `"ftp://h/ws" has the scheme "ftp"; ` + schemes},
		{"mailto:x", `scheme "mailto"`},
		{"ws:///ws", "has no host"},
		{"ws://u:sec/ret@h/ws", "percent-encoded"},
		{"ws://u:sec%ret@h/ws", "percent-encoded"},
		{"ws://h:x/ws", "not a URL"},
		{"ws://h/\x7f", "not a URL"},
	} {
		err := signal.CheckURL(c.raw, "ws", "wss")
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "sec")) {
			t.Errorf("CheckURL(%q) = %v, want %q", c.raw, err, c.want)
		}
	}
	if err := signal.CheckURL("wss://h/api/token", "http", "https"); err == nil || !strings.Contains(err.Error(), `did you mean "https://h/api/token"?`) {
		t.Errorf("wss for https: %v", err)
	}
}
