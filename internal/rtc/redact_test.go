//go:build !js

package rtc

import (
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	for _, msg := range []string{
		`Started agent: isControlling? true, remoteUfrag: "SECRET", remotePwd: "SECRET"`,
		`a=ice-ufrag:SECRET` + "\r\n" + `a=ice-pwd:SECRET` + "\r\n",
		`candidate:1 1 udp 5 192.0.2.1 5 typ host ufrag SECRET`,
		`GetAllConns by ufrag: SECRET`,
		`{URLs:[turn:turn.example] Username:SECRET Password:SECRET Credential:SECRET}`,
		`{"username":"SECRET","credential":"SEC\"RET SECRET"}`,
		`credential = 'SECRET SECRET'`,
		`master secret: SECRET`,
		`master_secret=[1 SECRET 3]`,
		`local key: SECRET, done`,
		`the keys: [SECRET SECRET]`,
		`token=SECRET`,
		`bare SECRETsecret+/0123456789 in a sentence`,
		`abcdefghijklmnopqrstuvSECRET`,
	} {
		if got := redact(msg); strings.Contains(got, "SECRET") || strings.Contains(got, "RET") || !strings.Contains(got, "[redacted]") {
			t.Errorf("%s\nbecame %s", msg, got)
		}
	}
	for _, msg := range []string{
		"Setting new connection state: Connected",
		"Failed to listen udp4 192.0.2.17: socket: too many open files",
		"turn:turn.example:3478 unreachable",
	} {
		if got := redact(msg); got != msg {
			t.Errorf("%s\nbecame %s", msg, got)
		}
	}
}
