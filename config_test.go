package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/sidecar"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// Every setting that cannot be used is named, before anything is started.
func TestBadConfig(t *testing.T) {
	nothing := func(context.Context, *Message) (any, error) { return nil, nil }
	for name, tt := range map[string]struct {
		cfg   Config
		env   map[string]string
		field string
		text  string
	}{
		"mode":                    {cfg: Config{Mode: 7}, field: "Mode", text: "Mode(7)"},
		"signaling scheme":        {cfg: Config{SignalingURL: "http://h/ws"}, field: "SignalingURL", text: "ws://"},
		"signaling host":          {cfg: Config{SignalingURL: "ws:///ws"}, field: "SignalingURL", text: "host"},
		"signaling port":          {cfg: Config{SignalingURL: "ws://h:99999/ws"}, field: "SignalingURL", text: "65535"},
		"CA file":                 {cfg: Config{Network: Network{CAFile: "/no/such.pem"}}, field: "Network.CAFile", text: "/no/such.pem"},
		"key without certificate": {cfg: Config{Network: Network{KeyFile: "x.pem"}}, field: "Network.CertFile", text: "KeyFile"},
		"signaling URL":           {cfg: Config{SignalingURL: "ws://h:port/ws"}, field: "SignalingURL", text: "port"},
		"signaling URL from env":  {env: map[string]string{"SIGNALING_URL": "localhost"}, field: "SignalingURL", text: "localhost"},
		"token URL":               {cfg: Config{TokenURL: "ftp://h/token"}, field: "TokenURL", text: "http://"},
		"API key":                 {cfg: Config{APIKey: "secret\n"}, field: "APIKey", text: "newline"},
		"UDP port":                {cfg: Config{Network: Network{UDPPort: 70000}}, field: "Network.UDPPort", text: "65535"},
		"max message":             {cfg: Config{Limits: Limits{MaxMessage: -1}}, field: "Limits.MaxMessage", text: "-1"},
		"max depth":               {cfg: Config{Limits: Limits{MaxDepth: -1}}, field: "Limits.MaxDepth", text: "-1"},
		"max requests":            {cfg: Config{Limits: Limits{MaxRequests: -1}}, field: "Limits.MaxRequests", text: "-1"},
		"request timeout":         {cfg: Config{RequestTimeout: -time.Second}, field: "RequestTimeout", text: "-1s"},
		"recovery timeout":        {cfg: Config{Network: Network{RecoveryTimeout: -time.Second}}, field: "Network.RecoveryTimeout", text: "-1s"},
		"nil handler":             {cfg: Config{Handlers: map[string]Handler{"a": nothing, "x": nil}}, field: `Handlers["x"]`, text: "nil"},
		"ICE scheme":              {cfg: Config{Network: Network{ICEServers: []ICEServer{{URLs: []string{"stun:a"}}, {URLs: []string{"http://b"}}}}}, field: "Network.ICEServers[1]", text: "http://b"},
		"ICE host":                {cfg: Config{Network: Network{ICEServers: []ICEServer{{URLs: []string{"stun://a"}}}}}, field: "Network.ICEServers[0]", text: "stun:example.org"},
		"ICE port":                {cfg: Config{Network: Network{ICEServers: []ICEServer{{URLs: []string{"stun:a:99999"}}}}}, field: "Network.ICEServers[0]", text: "65535"},
		"ICE bracket":             {cfg: Config{Network: Network{ICEServers: []ICEServer{{URLs: []string{"stun:[::1"}}}}}, field: "Network.ICEServers[0]", text: "[::1"},
		"ICE space":               {cfg: Config{Network: Network{ICEServers: []ICEServer{{URLs: []string{"stun:a b"}}}}}, field: "Network.ICEServers[0]", text: "a b"},
		"ICE query":               {cfg: Config{Network: Network{ICEServers: []ICEServer{{URLs: []string{"stun:a?transport=udp"}}}}}, field: "Network.ICEServers[0]", text: "transport"},
		"TURN_URL and secret":     {env: map[string]string{"TURN_URL": "turn:a:x", "TURN_SECRET": "s"}, field: "Network.ICEServers", text: "TURN_URL"},
		"TURN_URL with password":  {env: map[string]string{"TURN_URL": "turn:u:secret@host", "TURN_SECRET": "s"}, field: "Network.ICEServers", text: "turn:***@host"},
		"ICE with password":       {cfg: Config{Network: Network{ICEServers: []ICEServer{{URLs: []string{"turns:a", "turns:u:secret@host"}, Username: "u", Credential: "secret"}}}}, field: "Network.ICEServers[0]", text: "fields of their own"},
		"ICE without URLs":        {cfg: Config{Network: Network{ICEServers: []ICEServer{{}}}}, field: "Network.ICEServers[0]", text: "empty"},
		"extra ICE server":        {cfg: Config{Network: Network{ExtraICEServers: []ICEServer{{URLs: []string{"stun:"}}}}}, field: "Network.ExtraICEServers[0]", text: "stun:"},
		"TURN without password":   {cfg: Config{Network: Network{ICEServers: []ICEServer{{URLs: []string{"turn:a"}, Username: "u"}}}}, field: "Network.ICEServers[0]", text: "credential"},
		"TURN from env":           {env: map[string]string{"TURN_URL": "turn:a"}, field: "Network.ICEServers", text: "TURN_SECRET"},
		"drain timeout":           {cfg: Config{DrainTimeout: -time.Second}, field: "DrainTimeout", text: "24h"},
		"drain timeout, too long": {cfg: Config{DrainTimeout: 25 * time.Hour}, field: "DrainTimeout", text: "24h"},
		"drain from env":          {env: map[string]string{"MESH_DRAIN_TIMEOUT": "2"}, field: "DrainTimeout", text: "such as 90s"},
		"recovery from env":       {env: map[string]string{"MESH_RECOVERY_TIMEOUT": "90"}, field: "Network.RecoveryTimeout", text: "such as 90s"},
		"recovery of nothing":     {env: map[string]string{"MESH_RECOVERY_TIMEOUT": "0s"}, field: "Network.RecoveryTimeout", text: "positive"},
		"interface pattern":       {cfg: Config{Network: Network{Interfaces: []string{"eth0", "eth["}}}, field: "Network.Interfaces", text: "eth["},
		"interface from env":      {env: map[string]string{"MESH_INTERFACES": "wg*, eth["}, field: "Network.Interfaces", text: "wg*"},
		"commas for interfaces":   {env: map[string]string{"MESH_INTERFACES": " , "}, field: "Network.Interfaces", text: "name"},
		"comma for addresses":     {env: map[string]string{"MESH_ADDRESSES": ","}, field: "Network.Addresses", text: "network"},
		"interface without name":  {cfg: Config{Network: Network{Interfaces: []string{""}}}, field: "Network.Interfaces", text: "name"},
		"address":                 {cfg: Config{Network: Network{Addresses: []netip.Prefix{{}}}}, field: "Network.Addresses", text: "10.0.0.0/8"},
		"address from env":        {env: map[string]string{"MESH_ADDRESSES": "10.0.0.0/8,10.0.0.0/33"}, field: "Network.Addresses", text: "10.0.0.0/33"},
		"socket path too long":    {cfg: Config{Mode: Attach, Socket: "/" + strings.Repeat("x", 200)}, field: "Socket", text: "201"},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			m, err := New(t.Context(), tt.cfg)
			if err == nil {
				m.Close()
			}
			var ce *ConfigError
			if !errors.As(err, &ce) || ce.Field != tt.field || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v; want a ConfigError for %s that says %q", err, tt.field, tt.text)
			}
			if strings.Contains(fmt.Sprint(err), "secret") {
				t.Errorf("%v tells the key", err)
			}
		})
	}
}

// The token URL stands beside the signaling URL, under whatever prefix.
func TestTokenURL(t *testing.T) {
	for signaling, want := range map[string]string{
		"":                              "http://localhost:8080/api/token",
		"ws://h:1/ws":                   "http://h:1/api/token",
		"wss://h/mesh/ws":               "https://h/mesh/api/token",
		"wss://h/ws?tenant=a":           "https://h/api/token",
		"ws://[::1]:8080/signaling/ws/": "http://[::1]:8080/signaling/api/token",
	} {
		cfg, err := Config{SignalingURL: signaling}.withDefaults()
		if err != nil || cfg.TokenURL != want {
			t.Errorf("%q: got %q, %v; want %q", signaling, cfg.TokenURL, err, want)
		}
	}
	t.Setenv("TOKEN_URL", "http://elsewhere/token")
	if cfg, _ := (Config{}).withDefaults(); cfg.TokenURL != "http://elsewhere/token" {
		t.Errorf("TOKEN_URL is not used: %q", cfg.TokenURL)
	}
	if cfg, _ := (Config{SignalingURL: "ws://h/ws"}).withDefaults(); cfg.TokenURL != "http://h/api/token" {
		t.Errorf("a URL from the environment goes with a signaling server from the code: %q", cfg.TokenURL)
	}
}

// The recovery timeout comes from the environment unless it is set in the code.
func TestRecoveryTimeout(t *testing.T) {
	t.Setenv("MESH_RECOVERY_TIMEOUT", "90s")
	for set, want := range map[time.Duration]time.Duration{0: 90 * time.Second, time.Minute: time.Minute} {
		cfg, err := Config{Network: Network{RecoveryTimeout: set}}.withDefaults()
		if err != nil || cfg.Network.RecoveryTimeout != want {
			t.Errorf("%v in the code: got %v, %v; want %v", set, cfg.Network.RecoveryTimeout, err, want)
		}
	}
}

// Interfaces and addresses come from the environment unless they are set in the code, and reach the sidecar.
func TestInterfacesAndAddresses(t *testing.T) {
	t.Setenv("MESH_INTERFACES", " eth0, wg*,")
	t.Setenv("MESH_ADDRESSES", "10.0.0.0/8,fd00::7")
	network := func(n Network) (interfaces []string, addresses string) {
		cfg, err := Config{Network: n}.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		set, err := cfg.settings()
		if err != nil {
			t.Fatal(err)
		}
		environ, err := set.Environ()
		if err != nil {
			t.Fatal(err)
		}
		_, raw, _ := strings.Cut(environ, "=")
		if set, err = sidecar.ParseSettings(raw); err != nil {
			t.Fatal(err)
		}
		return set.Network.Interfaces, fmt.Sprint(set.Network.Addresses)
	}
	if i, a := network(Network{}); !slices.Equal(i, []string{"eth0", "wg*"}) || a != "[10.0.0.0/8 fd00::7/128]" {
		t.Errorf("from the environment: %q, %s", i, a)
	}
	set := Network{Interfaces: []string{"lo"}, Addresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	if i, a := network(set); !slices.Equal(i, []string{"lo"}) || a != "[127.0.0.0/8]" {
		t.Errorf("from the code: %q, %s", i, a)
	}
}

// So does the time of Close; a sidecar does not care.
func TestDrainTimeout(t *testing.T) {
	cfg, err := Config{}.withDefaults()
	if err != nil || cfg.DrainTimeout != 2*time.Second {
		t.Errorf("got %v, %v; want 2s", cfg.DrainTimeout, err)
	}
	t.Setenv("MESH_DRAIN_TIMEOUT", "90s")
	for set, want := range map[time.Duration]time.Duration{0: 90 * time.Second, time.Minute: time.Minute} {
		cfg, err := Config{DrainTimeout: set}.withDefaults()
		if err != nil || cfg.DrainTimeout != want {
			t.Errorf("%v in the code: got %v, %v; want %v", set, cfg.DrainTimeout, err, want)
		}
	}
}

// Arguments that cannot be used fail at once, and say why.
func TestBadArguments(t *testing.T) {
	nothing := func(context.Context, *Message) (any, error) { return nil, nil }
	m, f := newFakeAgent(t, Config{Limits: Limits{MaxMessage: 1 << 20, MaxDepth: 8}, Handlers: map[string]Handler{"taken": nothing}}, true)
	f.connect("bob")
	if err := m.WaitPeer(t.Context(), "bob"); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	send := func(peer string, msg Message) func() error {
		return func() error { return m.Send(ctx, peer, msg) }
	}
	deep := []byte(strings.Repeat("[", 8) + strings.Repeat("]", 8))
	for name, tt := range map[string]struct {
		do   func() error
		want error
	}{
		"empty peer id":      {send("", Message{Type: "x"}), ErrInvalid},
		"unknown peer":       {send("carol", Message{Type: "x"}), ErrNotConnected},
		"no type":            {send("bob", Message{}), ErrInvalid},
		"payload not JSON":   {send("bob", Message{Type: "x", Payload: json.RawMessage(`{"a":`)}), ErrInvalid},
		"two values":         {send("bob", Message{Type: "x", Payload: json.RawMessage(`1,"type":"y"`)}), ErrInvalid},
		"value and field":    {send("bob", Message{Type: "x", Payload: json.RawMessage(`1,"y":2`)}), ErrInvalid},
		"payload not UTF-8":  {send("bob", Message{Type: "x", Payload: json.RawMessage("\"\xff\"")}), ErrInvalid},
		"payload of a chan":  {send("bob", Message{Type: "x", Payload: make(chan int)}), ErrInvalid},
		"too large":          {send("bob", Message{Type: "x", Payload: strings.Repeat("x", 1<<20)}), ErrTooLarge},
		"too deep":           {send("bob", Message{Type: "x", Payload: json.RawMessage(deep)}), ErrTooLarge},
		"request to nobody":  {func() error { _, err := m.Request(ctx, "", Message{Type: "x"}); return err }, ErrInvalid},
		"connect to nobody":  {func() error { return m.Connect(ctx, "") }, ErrInvalid},
		"broadcast, no type": {func() error { return m.Broadcast(ctx, Message{}) }, ErrInvalid},
		"nil handler":        {func() error { return m.Handle("y", nil) }, ErrInvalid},
		"second handler":     {func() error { return m.Handle("taken", nothing) }, ErrDuplicateHandler},
		"context has ended": {func() error {
			done, cancel := context.WithCancel(ctx)
			cancel()
			_, err := m.Request(done, "bob", Message{Type: "x_request"})
			return err
		}, context.Canceled},
	} {
		if err := tt.do(); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func() error{
		"Send":      send("bob", Message{Type: "x"}),
		"Broadcast": func() error { return m.Broadcast(ctx, Message{Type: "x"}) },
		"Request":   func() error { _, err := m.Request(ctx, "bob", Message{Type: "x"}); return err },
		"Connect":   func() error { return m.Connect(ctx, "bob") },
		"WaitPeer":  func() error { return m.WaitPeer(ctx, "bob") },
		"Handle":    func() error { return m.Handle("z", nothing) },
		"Err":       m.Err,
	} {
		if err := do(); !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	if err := m.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// A refused key shows as a state, and as New's error where the caller waits.
func TestRefusedKey(t *testing.T) {
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no", http.StatusUnauthorized)
	}))
	defer refusing.Close()
	url := "ws" + strings.TrimPrefix(refusing.URL, "http") + "/ws"
	check := func(err error) {
		t.Helper()
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), refusing.URL+"/api/token") || strings.Contains(err.Error(), "hush") {
			t.Errorf("got %v", err)
		}
	}
	_, err := New(t.Context(), Config{SignalingURL: url, APIKey: "hush", WaitSignaling: true})
	check(err)

	states := make(chan SignalingStatus, 16)
	m, err := New(t.Context(), Config{SignalingURL: url, APIKey: "hush", OnSignaling: func(s SignalingStatus) { states <- s }})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	s := testutil.Take(t, "a state", states)
	for s.State != SignalingRefused {
		s = testutil.Take(t, "the refusal", states)
	}
	check(s.Err)
	if s := m.Signaling(); s.State != SignalingRefused {
		t.Errorf("got %+v", s)
	}
}

// A signaling server that is down does not keep a mesh from starting, unless
// the caller asked to wait for it.
func TestSignalingDown(t *testing.T) {
	cfg := Config{SignalingURL: "ws://127.0.0.1:1/ws", APIKey: "hush"}
	m, err := New(bounded(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if s := m.Signaling(); s.State != SignalingConnecting {
		t.Errorf("got %+v", s)
	}
	cfg.WaitSignaling = true
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg.OnSignaling = func(s SignalingStatus) {
		if s.Err != nil {
			cancel()
		}
	}
	_, err = New(ctx, cfg)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "127.0.0.1:1") || strings.Contains(err.Error(), "hush") {
		t.Errorf("got %v", err)
	}
}

// An agent cannot be its own peer, and finds out as soon as it knows who it is.
func TestConnectToOneself(t *testing.T) {
	m, f := newFakeAgent(t, Config{}, true)
	early := make(chan error, 1)
	go func() { early <- m.Connect(t.Context(), "me") }()
	f.heard() // connect
	f.say(`{"type":"signaling","payload":{"state":"connected","peer_id":"me"}}`)
	if err := <-early; !errors.Is(err, ErrInvalid) {
		t.Errorf("before it knew: %v", err)
	}
	if err := m.WaitPeer(t.Context(), "me"); !errors.Is(err, ErrInvalid) {
		t.Errorf("after: %v", err)
	}
}

// Relative paths are those of the working directory in which New was called.
func TestAbsolutePaths(t *testing.T) {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := Config{Mode: Binary, Binary: "./sidecar", Network: Network{CAFile: "ca.pem", CertFile: "/c.pem", KeyFile: "../k.pem"}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		cfg.Binary: filepath.Join(dir, "sidecar"), cfg.Network.CAFile: filepath.Join(dir, "ca.pem"),
		cfg.Network.CertFile: "/c.pem", cfg.Network.KeyFile: filepath.Join(filepath.Dir(dir), "k.pem"),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if cfg, err := (Config{Mode: Binary, Binary: "sidecar"}).withDefaults(); err != nil || cfg.Binary != "sidecar" {
		t.Errorf("what is looked for on the PATH became %s, %v", cfg.Binary, err)
	}
}

// What concerns only agents is ignored by a sidecar, whatever it is.
func TestServeSidecarIgnores(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := ServeSidecar(ctx, Config{
		Mode: 7, Socket: filepath.Join(testutil.ShortDir(t), "s"), SignalingURL: "ws://127.0.0.1:1/ws", RequestTimeout: -1,
		Limits: Limits{MaxRequests: -1}, Handlers: map[string]Handler{"x": nil}, Binary: "no such",
	})
	if len(modesHere()) > 1 && err != nil {
		t.Error(err)
	}
}
