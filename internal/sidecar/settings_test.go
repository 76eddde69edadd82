package sidecar

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

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

func TestSettingsEnviron(t *testing.T) {
	want := Settings{Signaling: signal.Settings{URL: "ws://s/ws", APIKey: `k"\`}, ICEServers: []signal.ICEServer{{URLs: []string{"stun:a"}}}, Token: "t"}
	env, err := want.Environ()
	if err != nil {
		t.Fatal(err)
	}
	raw, ok := strings.CutPrefix(env, Variable+"=")
	got, err := ParseSettings(raw)
	if !ok || err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v from %s", got, err, env)
	}
	if _, err := ParseSettings("{"); err == nil || !strings.Contains(err.Error(), Variable) {
		t.Errorf("got %v", err)
	}
}

// A TURN secret makes credentials for the servers that have none; those that are configured beside them stay.
func TestTURNCredentials(t *testing.T) {
	w := webRTC{set: Settings{
		ICEServers:      []signal.ICEServer{{URLs: []string{"turn:a"}}, {URLs: []string{"turn:b"}, Username: "u", Credential: "p"}},
		ExtraICEServers: []signal.ICEServer{{URLs: []string{"turn:c"}}},
	}}
	if got, want := w.iceServers(), slices.Concat(w.set.ICEServers, w.set.ExtraICEServers); !reflect.DeepEqual(got, want) {
		t.Errorf("without a secret: got %+v", got)
	}
	w.set.TURNSecret = "s"
	got := w.iceServers()
	expiry, _, _ := strings.Cut(got[0].Username, ":")
	seconds, err := strconv.ParseInt(expiry, 10, 64)
	if left := time.Until(time.Unix(seconds, 0)); err != nil || left <= turnLifetime/2 || got[0].Credential == "" {
		t.Errorf("got %+v, which is valid for %s (%v)", got[0], left, err)
	}
	if got[1].Username != "u" || got[1].Credential != "p" || got[2].Username != "" || w.set.ICEServers[0].Username != "" {
		t.Errorf("got %+v", got)
	}
}
