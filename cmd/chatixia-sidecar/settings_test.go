//go:build !js

package main

import (
	"errors"
	"flag"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseSettings(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("\uFEFFk1\r\n"), 0o600); err != nil { // as some editors write it
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		args   []string
		policy string // ICE_TRANSPORT_POLICY before
		want   map[string]string
	}{
		{name: "nothing", want: map[string]string{"ICE_TRANSPORT_POLICY": "all"}},
		{name: "every variable", args: []string{"-signaling-url", "ws://h/ws", "-token-url=http://h/t", "-socket", "/s",
			"-turn-url", "turn:h", "-turn-username", "u", "-turn-password-file", key, "-turn-secret-file", key, "-api-key-file", key, "-relay-only", "-recovery-timeout", "2m",
			"-interfaces", "eth*,lo", "-addresses", "10.0.0.0/8"},
			want: map[string]string{"SIGNALING_URL": "ws://h/ws", "TOKEN_URL": "http://h/t", "IPC_SOCKET": "/s", "TURN_URL": "turn:h",
				"TURN_USERNAME": "u", "TURN_PASSWORD": "k1", "TURN_SECRET": "k1", "API_KEY": "k1", "ICE_TRANSPORT_POLICY": "relay",
				"MESH_RECOVERY_TIMEOUT": "2m", "MESH_INTERFACES": "eth*,lo", "MESH_ADDRESSES": "10.0.0.0/8"}},
		{name: "identity", args: []string{"-identity-key", "k", "-mesh-name=demo", "-identity-policy", "known", "-identity-required", "-known-peers", "p",
			"-roots", "a,b", "-membership", "m", "-revoked", "r"},
			want: map[string]string{"MESH_IDENTITY_KEY": "k", "MESH_NAME": "demo", "MESH_IDENTITY_POLICY": "known", "MESH_IDENTITY_REQUIRED": "true",
				"MESH_KNOWN_PEERS": "p", "MESH_ROOTS": "a,b", "MESH_MEMBERSHIP": "m", "MESH_REVOKED": "r", "ICE_TRANSPORT_POLICY": "all"}},
		{name: "identity not required", args: []string{"-identity-required=false"},
			want: map[string]string{"MESH_IDENTITY_REQUIRED": "false", "ICE_TRANSPORT_POLICY": "all"}},
		{name: "relay by the environment", policy: "relay", want: map[string]string{"ICE_TRANSPORT_POLICY": "relay"}},
		{name: "a flag takes precedence", policy: "relay", args: []string{"-relay-only=false"}, want: map[string]string{"ICE_TRANSPORT_POLICY": "all"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("ICE_TRANSPORT_POLICY", tc.policy)
			s, err := parseSettings(tc.args, io.Discard)
			if err != nil || !maps.Equal(s.environ, tc.want) {
				t.Errorf("environ %v, %v; want %v", s.environ, err, tc.want)
			}
		})
	}
}

func TestParseSettingsFails(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\uFEFF\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"-no-such-flag"}, "no-such-flag"},
		{[]string{"more"}, `"more"`},
		{[]string{"-udp-port", "many"}, "udp-port"},
		{[]string{"-identity-required=maybe"}, "identity-required"},
		{[]string{"-api-key-file", empty}, "empty"},
		{[]string{"-api-key-file", empty + "x"}, empty + "x"},
	} {
		if _, err := parseSettings(tc.args, io.Discard); !errors.Is(err, errUsage) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: error is %v", tc.args, err)
		}
	}
}

func TestVersion(t *testing.T) {
	if _, err := parseSettings([]string{"-version"}, io.Discard); !errors.Is(err, errVersion) {
		t.Errorf("error is %v", err)
	}
}

func TestHelp(t *testing.T) {
	t.Setenv("RUST_LOG", "debug")
	t.Setenv("ICE_TRANSPORT_POLICY", "relay")
	var out strings.Builder
	if _, err := parseSettings([]string{"-h"}, &out); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("error is %v", err)
	}
	for _, w := range []string{
		"SIGNALING_URL", "TOKEN_URL", "API_KEY", "IPC_SOCKET", "TURN_URL", "TURN_SECRET", "TURN_USERNAME", "TURN_PASSWORD", "ICE_TRANSPORT_POLICY", "RUST_LOG", "MESH_RECOVERY_TIMEOUT", "-recovery-timeout",
		"MESH_INTERFACES", "-interfaces", "MESH_ADDRESSES", "-addresses", "MESH_NO_LOCAL", "-no-local",
		"-signaling-url", "-token-url", "-api-key-file", "-socket", "-turn-url", "-relay-only", "-udp-port", "-mdns", "-no-stun", "-log-format", "-log-level", "-trust-dotenv-with-secrets", "MESH_TRUST_DOTENV_WITH_SECRETS",
		"MESH_IDENTITY_KEY", "MESH_IDENTITY_POLICY", "MESH_IDENTITY_REQUIRED", "MESH_KNOWN_PEERS", "MESH_ROOTS", "MESH_MEMBERSHIP", "MESH_REVOKED", "MESH_NAME",
		"-identity-key", "-identity-policy", "-identity-required", "-known-peers", "-roots", "-membership", "-revoked", "-mesh-name",
		"ws://localhost:8080/ws", "ak_dev_001", "/tmp/chatixia-sidecar.sock", publicSTUN, ".env", "(default info)",
	} {
		if !strings.Contains(out.String(), w) {
			t.Errorf("the help does not mention %s", w)
		}
	}
	if strings.Contains(out.String(), `"debug"`) || strings.Contains(out.String(), "default true") {
		t.Errorf("the help shows defaults from the environment:\n%s", out.String())
	}
}

func TestSTUNServers(t *testing.T) {
	for _, tc := range []struct {
		turn, policy string
		noSTUN, want bool
	}{
		{want: true},
		{policy: "all", want: true},
		{noSTUN: true},
		{turn: "turn:h", want: true},
		{policy: "relay"},
	} {
		t.Setenv("TURN_URL", tc.turn)
		t.Setenv("ICE_TRANSPORT_POLICY", tc.policy)
		s := settings{noSTUN: tc.noSTUN}
		if got := s.stunServers(); (len(got) == 1 && got[0].URLs[0] == publicSTUN) != tc.want {
			t.Errorf("%+v: %v", tc, got)
		}
	}
}

func TestRustLevel(t *testing.T) {
	for directives, want := range map[string]string{
		"": "", "info": "info", "WARN": "warn", "off": "disabled", "nonsense": "",
		"sidecar=debug": "debug", "sidecar=debug,warn": "warn", "a=trace, b=error": "trace", "a=x,b=error": "error", ",,": "", "a=": "",
	} {
		if got := rustLevel(directives); got != want {
			t.Errorf("RUST_LOG=%q: level %q, want %q", directives, got, want)
		}
	}
}
