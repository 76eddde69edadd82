package sidecar

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// FuzzParseSettings: any value of the variable gives settings or an error; settings go through the environment of
// another process unchanged, also that of chatixia-mesh's sidecar, where no value can add a variable.
func FuzzParseSettings(f *testing.F) {
	whole := Settings{
		Signaling: signal.Settings{URL: "wss://h/ws", TokenURL: "https://h/api/token", APIKey: "k", Started: time.Unix(1_700_000_000, 5).UTC(), CAFile: "ca.pem"},
		Network:   Network{RelayOnly: true, UDPPort: -1, RecoveryTimeout: time.Second, Interfaces: []string{"wg*"}, Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
		Limits:    wire.Limits{MaxMessage: 1 << 20, MaxDepth: 9}, TURNSecret: "t", Socket: "/run/s", Token: "token", WatchStdin: true, LogLevel: "info",
		ICEServers: []signal.ICEServer{{URLs: []string{"turn:h"}, Username: "u", Credential: "c"}},
	}
	environ, err := whole.Environ()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(strings.TrimPrefix(environ, Variable+"="))
	for _, raw := range []string{``, `{`, `null`, `[]`, `{"signaling":7}`, `{"signaling":{"started":"never"}}`, `{"ice_servers":[{"urls":"stun:a"},null]}`,
		`{"signaling":{"url":"ws://h\nAPI_KEY=x"},"limits":{"MaxMessage":-1}}`, `{"network":{"recovery_timeout":1e30}}`} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		set, err := ParseSettings(raw)
		if err != nil {
			return
		}
		environ, err := set.Environ()
		if err != nil {
			t.Fatalf("%q cannot be passed on: %v", raw, err)
		}
		value, ok := strings.CutPrefix(environ, Variable+"=")
		again, err := ParseSettings(value)
		if !ok || err != nil {
			t.Fatalf("%q became %q: %v", raw, environ, err)
		}
		if twice, err := again.Environ(); err != nil || twice != environ {
			t.Fatalf("%q became %q, and then %q (%v)", raw, environ, twice, err)
		}
		if strings.ContainsAny(environ, "\x00\n") {
			t.Fatalf("%q became %q, which is no variable", raw, environ)
		}
		seen := map[string]bool{}
		for _, v := range set.BaseEnviron([]string{"HOME=/", "API_KEY=old"}) {
			name, value, ok := strings.Cut(v, "=")
			if !ok || seen[name] || v == "API_KEY=old" || value == "" {
				t.Fatalf("%q: the variable %q", raw, v)
			}
			seen[name] = true
		}
	})
}
