package signaling_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/signaling"
)

func TestTokenExchange(t *testing.T) {
	s := serve(t, nil)
	for _, c := range []struct {
		name   string
		header []string
		status int
	}{
		{"key", []string{"X-API-Key", "key-one-of-tests"}, 200},
		{"device token", []string{"X-Device-Token", "key-one-of-tests"}, 200},
		{"none", nil, 401},
		{"wrong", []string{"X-API-Key", "key-onE"}, 401},
		{"prefix", []string{"X-API-Key", "key-on"}, 401},
		{"peer id", []string{"X-API-Key", "agent-001"}, 401},
		{"empty", []string{"X-API-Key", ""}, 401},
		{"in another header", []string{"Authorization", "Bearer key-one-of-tests"}, 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body := s.do(t, "POST", "/api/token", c.header...)
			if status != c.status {
				t.Fatalf("%d %v, want %d", status, body, c.status)
			}
			if status == 401 {
				if text, _ := body["error"].(string); text == "" || strings.Contains(text, "key-on") {
					t.Fatalf("answer %v, want an error without the key", body)
				}
				return
			}
			if body["peer_id"] != "agent-001" || body["role"] != "agent" || body["bearer"] != true {
				t.Fatalf("answer %v", body)
			}
			claims := jwt.MapClaims{}
			_, err := jwt.ParseWithClaims(body["token"].(string), claims, func(tok *jwt.Token) (any, error) {
				if tok.Header["alg"] != "HS256" || tok.Header["typ"] != "JWT" {
					t.Errorf("header %v", tok.Header)
				}
				return []byte(secret), nil
			})
			exp, iat := claims["exp"].(float64), claims["iat"].(float64)
			if err != nil || claims["sub"] != "agent-001" || claims["role"] != "agent" || exp-iat != 300 {
				t.Fatalf("claims %v, %v", claims, err)
			}
		})
	}
}

func TestForgedTokens(t *testing.T) {
	s := serve(t, nil)
	now := time.Now()
	sign := func(method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
		t.Helper()
		token, err := jwt.NewWithClaims(method, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	good := func() jwt.MapClaims {
		return jwt.MapClaims{"sub": "agent-001", "role": "agent", "iat": now.Unix(), "exp": now.Add(time.Minute).Unix()}
	}
	without := func(key string) jwt.MapClaims {
		c := good()
		delete(c, key)
		return c
	}
	with := func(key string, value any) jwt.MapClaims {
		c := good()
		c[key] = value
		return c
	}
	hs, key := jwt.SigningMethodHS256, []byte(secret)
	valid := sign(hs, key, good())
	parts := strings.Split(valid, ".")
	for _, c := range []struct {
		name, token string
		ok          bool
	}{
		{"valid", valid, true},
		{"none", sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good()), false},
		{"no signature", parts[0] + "." + parts[1] + ".", false},
		{"two parts", parts[0] + "." + parts[1], false},
		{"HS384 with the right secret", sign(jwt.SigningMethodHS384, key, good()), false},
		{"HS512 with the right secret", sign(jwt.SigningMethodHS512, key, good()), false},
		{"another secret", sign(hs, []byte("another"), good()), false},
		{"empty secret", sign(hs, []byte{}, good()), false},
		{"another's claims", parts[0] + "." + strings.Split(sign(hs, []byte("x"), with("sub", "agent-002")), ".")[1] + "." + parts[2], false},
		{"expired", sign(hs, key, with("exp", now.Add(-time.Second).Unix())), false},
		{"no expiry", sign(hs, key, without("exp")), false},
		{"not yet", sign(hs, key, with("nbf", now.Add(time.Hour).Unix())), false},
		{"no subject", sign(hs, key, without("sub")), false},
		{"control character in the subject", sign(hs, key, with("sub", "agent\n001")), false},
		{"number as subject", sign(hs, key, with("sub", 1)), false},
		{"padding", valid + "=", false},
		{"nonsense", "nonsense", false},
		{"nothing", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for where, header := range map[string]http.Header{"query": nil, "header": {"Authorization": {"Bearer " + c.token}}} {
				token := c.token
				if where == "header" {
					token = ""
				}
				conn, status, err := s.dialToken(t, token, header)
				if conn != nil {
					_ = conn.CloseNow()
				}
				if c.ok && err != nil || !c.ok && status != http.StatusUnauthorized {
					t.Errorf("in the %s: %d, %v", where, status, err)
				}
			}
		})
	}
}

func TestDevelopmentMode(t *testing.T) {
	s := serve(t, func(c *signaling.Config) { c.Dev, c.Keys, c.Secret = true, nil, "" })
	long := strings.Repeat("x", 128)
	for _, c := range []struct{ key, id string }{
		{"alice", "alice"}, {"Ärger & co", "Ärger & co"}, {long, long}, {long + "x", ""}, {"a\tb", ""}, {"a\u200bb", ""}, {"\xff", ""},
	} {
		status, body := s.do(t, "POST", "/api/token", "X-API-Key", c.key)
		if c.id == "" && status != 401 || c.id != "" && (status != 200 || body["peer_id"] != c.id || body["role"] != "agent") {
			t.Errorf("key %q: %d %v", c.key, status, body)
		}
	}
	random := regexp.MustCompile(`^agent-[a-z2-7]{10}$`)
	seen := map[any]bool{}
	for range 3 {
		_, body := s.do(t, "POST", "/api/token")
		if id, _ := body["peer_id"].(string); !random.MatchString(id) || seen[id] {
			t.Errorf("random id %q", id)
		}
		seen[body["peer_id"]] = true
	}
	if conn, _, err := s.dialToken(t, s.token(t, "alice"), nil); err != nil {
		t.Error(err)
	} else {
		_ = conn.CloseNow()
	}
}

// TestDevelopmentModeIsLocal: every path refuses requests that may come from another host.
func TestDevelopmentModeIsLocal(t *testing.T) {
	sig, err := signaling.New(signaling.Config{Dev: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sig.Close() }()
	for _, c := range []struct {
		name, remote, header, value string
		ok                          bool
	}{
		{"IPv4", "127.0.0.1:1234", "", "", true},
		{"IPv4 loopback network", "127.9.9.9:1234", "", "", true},
		{"IPv6", "[::1]:1234", "", "", true},
		{"IPv4 in IPv6", "[::ffff:127.0.0.1]:1234", "", "", true},
		{"page of this machine", "127.0.0.1:1", "Origin", "http://localhost:3000", true},
		{"page of this machine by address", "127.0.0.1:1", "Origin", "http://[::1]:3000", true},
		{"network", "192.168.1.7:1234", "", "", false},
		{"IPv6 network", "[fe80::1%eth0]:1234", "", "", false},
		{"unspecified", "0.0.0.0:1234", "", "", false},
		{"no address", "@", "", "", false},
		{"name", "localhost:1234", "", "", false},
		{"through a proxy", "127.0.0.1:1", "X-Forwarded-For", "10.0.0.1", false},
		{"through another proxy", "127.0.0.1:1", "Forwarded", "for=10.0.0.1", false},
		{"through a proxy that hides it", "127.0.0.1:1", "X-Forwarded-For", "", false},
		{"through a proxy that adds only its name", "127.0.0.1:1", "Via", "1.1 proxy", false},
		{"through a proxy that adds only the host", "127.0.0.1:1", "X-Forwarded-Host", "mesh.example", false},
		{"through a content delivery network", "127.0.0.1:1", "CF-Ray", "1", false},
		{"through another one", "127.0.0.1:1", "True-Client-IP", "10.0.0.1", false},
		{"through nginx with a common setting", "127.0.0.1:1", "X-Real-IP", "10.0.0.1", false},
		{"through IIS", "127.0.0.1:1", "X-Original-Host", "mesh.example", false},
		{"through Envoy", "127.0.0.1:1", "X-Envoy-External-Address", "10.0.0.1", false},
		{"through nginx as it is", "127.0.0.1:1", "HTTP", "1.0", false},
		{"localhost", "127.0.0.1:1", "Host", "LOCALHOST", true},
		{"loopback host", "127.0.0.1:1", "Host", "127.0.0.1:8080", true},
		{"loopback host, IPv6", "[::1]:1", "Host", "[::1]:8080", true},
		{"loopback host, IPv6 without a port", "[::1]:1", "Host", "[::1]", true},
		{"DNS rebinding", "127.0.0.1:1", "Host", "evil.example:8080", false},
		{"DNS rebinding of a lookalike", "127.0.0.1:1", "Host", "127.0.0.1.evil.example", false},
		{"no host", "127.0.0.1:1", "Host", "", false},
		{"page of another site", "127.0.0.1:1", "Origin", "https://evil.example", false},
		{"page of a lookalike", "127.0.0.1:1", "Origin", "https://localhost.evil.example", false},
		{"page without an origin", "127.0.0.1:1", "Origin", "null", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, path := range []string{"POST /api/token", "GET /ws", "GET /api/config", "GET /healthz"} {
				method, path, _ := strings.Cut(path, " ")
				r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
				r.RemoteAddr, r.Host = c.remote, "localhost:8080"
				if c.header == "Host" {
					r.Host = c.value
				} else if c.header == "HTTP" {
					r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/1.0", 1, 0
				} else if c.header != "" {
					r.Header.Set(c.header, c.value)
				}
				w := httptest.NewRecorder()
				sig.ServeHTTP(w, r)
				if (w.Code != http.StatusForbidden) != c.ok {
					t.Errorf("%s: %d", path, w.Code)
				}
				if !c.ok && !strings.Contains(w.Body.String(), "development mode") {
					t.Errorf("%s: %s", path, w.Body)
				}
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*signaling.Config)
		want   string // "" for no error
	}{
		{"good", func(*signaling.Config) {}, ""},
		{"development", func(c *signaling.Config) { *c = signaling.Config{Dev: true} }, ""},
		{"nothing set", func(c *signaling.Config) { *c = signaling.Config{} }, "Keys: "},
		{"keys in development", func(c *signaling.Config) { c.Dev = true }, "Keys: "},
		{"short secret", func(c *signaling.Config) { c.Secret = secret[:31] }, "Secret: 31 bytes"},
		{"secret of 32 bytes", func(c *signaling.Config) { c.Secret = secret[:32] }, ""},
		{"short key", func(c *signaling.Config) {
			c.Keys = map[string]signaling.Key{"key-one-of-test": {PeerID: "agent-007", Role: "agent"}}
		}, `"agent-007"`},
		{"short TURN secret", func(c *signaling.Config) { c.TURNURL, c.TURNSecret = "turn:x", "x" }, "TURNSecret: 1 bytes"},
		{"weak secrets allowed", func(c *signaling.Config) {
			c.Keys = map[string]signaling.Key{"key-one": {PeerID: "a", Role: "agent"}}
			c.Secret, c.TURNURL, c.TURNSecret, c.AllowWeakSecrets = "x", "turn:x", "x", true
		}, ""},
		{"short secret in development", func(c *signaling.Config) { *c = signaling.Config{Dev: true, Secret: "x"} }, ""},
		{"proxies in development", func(c *signaling.Config) {
			*c = signaling.Config{Dev: true, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
		}, "TrustedProxies: "},
		{"no secret", func(c *signaling.Config) { c.Secret = "" }, "Secret: "},
		{"the original's default secret", func(c *signaling.Config) { c.Secret = "dev-secret-change-me" }, "Secret: "},
		{"no peer id", func(c *signaling.Config) { c.Keys = map[string]signaling.Key{"key-one-of-tests": {Role: "agent"}} }, "peer_id: empty"},
		{"no role", func(c *signaling.Config) { c.Keys = map[string]signaling.Key{"key-one-of-tests": {PeerID: "a"}} }, "role: empty"},
		{"empty key", func(c *signaling.Config) { c.Keys = map[string]signaling.Key{"": {PeerID: "a", Role: "agent"}} }, "key itself is empty"},
		{"long peer id", func(c *signaling.Config) {
			c.Keys = map[string]signaling.Key{"key-one-of-tests": {PeerID: strings.Repeat("x", 129), Role: "agent"}}
		}, "at most 128"},
		{"control character", func(c *signaling.Config) {
			c.Keys = map[string]signaling.Key{"key-one-of-tests": {PeerID: "a\x1b", Role: "agent"}}
		}, "U+001B"},
		{"TURN secret alone", func(c *signaling.Config) { c.TURNSecret = "x" }, "TURNURL: "},
		{"TURN URL alone", func(c *signaling.Config) { c.TURNURL = "turn:x" }, "TURNSecret: "},
		{"not a TURN URL", func(c *signaling.Config) { c.TURNURL, c.TURNSecret = "http://x", "x" }, "TURNURL: "},
		{"no TURN URL, with a password", func(c *signaling.Config) { c.TURNURL, c.TURNSecret = "u:key-one-of-tests@host", "x" }, `"***@host"`},
		{"TURN URL with a password", func(c *signaling.Config) { c.TURNURL, c.TURNSecret = "turn:u:key-one-of-tests@host", "x" }, `"turn:***@host"`},
		{"ICE server with a password", func(c *signaling.Config) {
			c.ICEServers = []signaling.ICEServer{{URLs: []string{"stun:key-one-of-tests@host"}}}
		}, `"stun:***@host"`},
		{"bad ICE server", func(c *signaling.Config) { c.ICEServers = []signaling.ICEServer{{URLs: []string{"x"}}} }, "ICEServers[0]: urls: "},
		{"negative limit", func(c *signaling.Config) { c.MaxQueue = -1 }, "MaxQueue: "},
		{"negative time", func(c *signaling.Config) { c.PingInterval = -1 }, "PingInterval: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := signaling.Config{Secret: secret, Keys: testKeys}
			c.change(&cfg)
			s, err := signaling.New(cfg)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				_ = s.Close()
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "key-one-of-tests") {
				t.Fatalf("error %v, want one with %q and without a key", err, c.want)
			}
		})
	}
}

func TestLoadKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	for _, c := range []struct{ name, text, want string }{
		{"good", `{"keys":{"k1":{"peer_id":"a","role":"agent"},"k2":{"peer_id":"a","role":"agent","note":1}}}`, ""},
		{"byte order mark", "\ufeff" + `{"keys":{"k1":{"peer_id":"a","role":"agent"},"k2":{"peer_id":"a","role":"agent"}}}`, ""},
		{"not JSON", `keys`, "invalid character"},
		{"no keys", `{}`, "keys: empty"},
		{"empty keys", `{"keys":{}}`, "keys: empty"},
		{"list", `{"keys":["k1"]}`, "array instead of"},
		{"string as entry", `{"keys":{"k1":"agent-001"}}`, "string instead of"},
		{"number as peer id", `{"keys":{"k1":{"peer_id":1,"role":"agent"}}}`, "number instead of"},
		{"no peer id", `{"keys":{"k1":{"role":"agent"}}}`, "peer_id: empty"},
		{"no role", `{"keys":{"k1":{"peer_id":"a"}}}`, "role: empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			keys, err := signaling.LoadKeys(path)
			if c.want == "" {
				if err != nil || len(keys) != 2 || keys["k2"] != (signaling.Key{PeerID: "a", Role: "agent"}) {
					t.Fatalf("%v, %v", keys, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "k1") {
				t.Fatalf("error %v, want one with %q and the path, without a key", err, c.want)
			}
		})
	}
	if _, err := signaling.LoadKeys(path + ".not"); err == nil || !os.IsNotExist(unwrap(err)) {
		t.Fatalf("error %v for a missing file", err)
	}
}

func unwrap(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok || os.IsNotExist(err) {
			return err
		}
		err = u.Unwrap()
	}
}

func TestICEConfig(t *testing.T) {
	s := serve(t, nil)
	if status, body := s.do(t, "GET", "/api/config"); status != 200 || fmt.Sprint(body["iceServers"]) != "[]" {
		t.Fatalf("nothing configured: %d %v, want an empty list", status, body)
	}
	s = serve(t, func(c *signaling.Config) {
		c.ICEServers = []signaling.ICEServer{{URLs: []string{"stun:s"}}}
		c.TURNURL, c.TURNSecret, c.TURNLifetime = "turn:t:3478", turnSecret, time.Hour
	})
	for _, path := range []string{"GET /api/config", "POST /api/token"} {
		t.Run(path, func(t *testing.T) { checkICE(t, s, path) })
	}
}

const turnSecret = "hush, thirty-two bytes and more of it"

func checkICE(t *testing.T, s *site, path string) {
	t.Helper()
	before := time.Now()
	method, path, _ := strings.Cut(path, " ")
	_, body := s.do(t, method, path, "X-API-Key", "key-one-of-tests")
	b, err := json.Marshal(body["iceServers"])
	if err != nil {
		t.Fatal(err)
	}
	var servers []signaling.ICEServer
	if err := json.Unmarshal(b, &servers); err != nil || len(servers) != 2 || servers[0].URLs[0] != "stun:s" || servers[0].Username != "" {
		t.Fatalf("%s, %v", b, err)
	}
	turn := servers[1]
	expiry, name, _ := strings.Cut(turn.Username, ":")
	at, err := strconv.ParseInt(expiry, 10, 64)
	if err != nil || name != "mesh" || at < before.Add(time.Hour).Unix() || at > time.Now().Add(time.Hour).Unix() {
		t.Errorf("user %q", turn.Username)
	}
	mac := hmac.New(sha1.New, []byte(turnSecret))
	mac.Write([]byte(turn.Username))
	if want := base64.StdEncoding.EncodeToString(mac.Sum(nil)); turn.Credential != want || turn.URLs[0] != "turn:t:3478" {
		t.Errorf("%+v, want the password %s", turn, want)
	}
}

// TestWeakeningIsLogged: whatever weakens the server is in the log.
func TestWeakeningIsLogged(t *testing.T) {
	for text, weaken := range map[string]func(*signaling.Config){
		"AllowWeakSecrets":   func(c *signaling.Config) { c.AllowWeakSecrets = true },
		"AllowAnonymousTURN": func(c *signaling.Config) { c.AllowAnonymousTURN = true },
		"development mode":   func(c *signaling.Config) { c.Dev, c.Keys = true, nil },
		"":                   func(*signaling.Config) {},
	} {
		var log testutil.LogBuffer
		cfg := signaling.Config{Secret: secret, Keys: testKeys, Logger: zerolog.New(&log)}
		weaken(&cfg)
		s, err := signaling.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if text == "" && log.String() != "" || !strings.Contains(log.String(), text) {
			t.Errorf("log %q, want %q", log.String(), text)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
