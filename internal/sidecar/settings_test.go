package sidecar

import (
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// chatixia-mesh's own sidecar reads the settings from variables of its own, and only those.
func TestBaseEnviron(t *testing.T) {
	inherited := []string{"HOME=/h", "TURN_URL=turn:old", "TURN_SECRET=old", "ICE_TRANSPORT_POLICY=relay", "API_KEY=old", "=odd"}
	plain := Settings{Signaling: signal.Settings{URL: "ws://s/ws", TokenURL: "http://s/api/token", APIKey: "k"}, Socket: "/s"}
	base := []string{"HOME=/h", "=odd", "SIGNALING_URL=ws://s/ws", "TOKEN_URL=http://s/api/token", "API_KEY=k", "IPC_SOCKET=/s"}
	for _, tc := range []struct {
		name   string
		change func(*Settings)
		more   []string
	}{
		{"plain", func(*Settings) {}, nil},
		{"relay", func(s *Settings) { s.Network.RelayOnly = true }, []string{"ICE_TRANSPORT_POLICY=relay"}},
		{"stun only", func(s *Settings) { s.ICEServers = []signal.ICEServer{{URLs: []string{"stun:a"}}} }, nil},
		{"turn", func(s *Settings) {
			s.ICEServers = []signal.ICEServer{{URLs: []string{"stun:a"}}, {URLs: []string{"turn:b"}, Username: "u", Credential: "p"}}
		}, []string{"TURN_URL=turn:b", "TURN_USERNAME=u", "TURN_PASSWORD=p"}},
		{"turn with a secret", func(s *Settings) {
			s.ICEServers, s.TURNSecret = []signal.ICEServer{{URLs: []string{"turn:b"}}}, "x"
		}, []string{"TURN_URL=turn:b", "TURN_SECRET=x"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := plain
			tc.change(&s)
			got := strings.Join(s.BaseEnviron(inherited), "\n")
			if want := strings.Join(append(append([]string(nil), base...), tc.more...), "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
	if inherited[1] != "TURN_URL=turn:old" {
		t.Error("the argument was changed")
	}
}
