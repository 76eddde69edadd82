package signal

import "testing"

// The key goes into no handshake that may lead elsewhere than the token exchange.
func TestKeyStaysWhereItGoes(t *testing.T) {
	for _, c := range []struct {
		url, tokens, key string
		direct           bool
	}{
		{"ws://mesh.test/ws", "http://mesh.test/api/token", "k", true},
		{"wss://mesh.test:8443/a/ws", "https://MESH.test:8443/a/api/token", "k", true},
		{"http://mesh.test/ws", "http://mesh.test/api/token", "k", true},
		{"ws://mesh.test/ws", "http://mesh.test/api/token", "", false}, // asks for a random id
		{"ws://mesh.test/ws", "https://mesh.test/api/token", "k", false},
		{"wss://mesh.test/ws", "http://mesh.test/api/token", "k", false},
		{"wss://other.test/ws", "https://mesh.test/api/token", "k", false},
		{"wss://mesh.test:8443/ws", "https://mesh.test/api/token", "k", false},
		{"wss://mesh.test/a/ws", "https://mesh.test/api/token", "k", false},
		{"wss://mesh.test/socket", "https://mesh.test/api/token", "k", false},
		{"wss://mesh.test/ws", "https://mesh.test/token", "k", false},
		{"wss://mesh.test/ws", "https://user:pass@mesh.test/api/token", "k", false},
		{"wss://user:pass@mesh.test/ws", "https://mesh.test/api/token", "k", false},
		{"wss://mesh.test/ws?to=x", "https://mesh.test/api/token", "k", false},
		{"wss://mesh.test/ws", "https://mesh.test/api/token?to=x", "k", false},
	} {
		if got := New(Config{Settings: Settings{URL: c.url, TokenURL: c.tokens, APIKey: c.key}}).direct(); got != c.direct {
			t.Errorf("%s beside %s, key %q: %t", c.url, c.tokens, c.key, got)
		}
	}
}
