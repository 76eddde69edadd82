package signal

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestParseToken(t *testing.T) {
	for _, c := range []struct{ name, body, err string }{
		{"complete", `{"token":"t","peer_id":"agent-001","role":"agent","more":1}`, ""},
		{"ICE servers of another kind", `{"token":"t","peer_id":"agent-001","role":"agent","iceServers":"stun:x"}`, ""},
		{"null as ICE servers", `{"token":"t","peer_id":"agent-001","role":"agent","iceServers":null}`, ""},
		{"no token", `{"peer_id":"a","role":"agent"}`, "token: missing or empty"},
		{"empty peer id", `{"token":"t","peer_id":"","role":"agent"}`, "peer_id: missing or empty"},
		{"null role", `{"token":"t","peer_id":"a","role":null}`, "role: missing or empty"},
		{"number as peer id", `{"token":"t","peer_id":1,"role":"agent"}`, "peer_id: not a string"},
		{"a page", `<html>`, "not JSON"},
		{"a list", `[]`, "not a JSON object"},
		{"nothing", ``, "not JSON"},
		{"a token in another case", `{"token":"t","Token":"u","peer_id":"agent-001","role":"agent"}`, "token: written in another case"},
		{"two tokens", `{"token":"t","token":"u","peer_id":"agent-001","role":"agent"}`, "token: given twice"},
		{"ICE servers in another case", `{"token":"t","peer_id":"agent-001","role":"agent","ICEServers":[]}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseToken([]byte(c.body))
			if c.err == "" {
				if err != nil || got.Token != "t" || got.PeerID != "agent-001" || got.Role != "agent" || got.ice != nil {
					t.Fatalf("parseToken = %+v, %v", got, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Fatalf("error %v, want one with %q", err, c.err)
			}
		})
	}
}

// The token is in a header where the server says that it takes it there, since URLs end up in logs. Base servers
// read the query only, and credentials in the URL need the same header.
func TestTokenInHeader(t *testing.T) {
	for _, c := range []struct {
		name, answer, user string
		header             bool
	}{
		{"base server", ``, "", false},
		{"our server", `,"bearer":true`, "", true},
		{"a server that does not", `,"bearer":false`, "", false},
		{"another kind", `,"bearer":"true"`, "", false},
		{"null", `,"bearer":null`, "", false},
		{"another case", `,"Bearer":true`, "", false},
		{"credentials in the URL", `,"bearer":true`, "user:password@", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			requests := make(chan *http.Request, 10)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/api/token" {
					_, _ = io.WriteString(w, `{"token":"tok-1","peer_id":"a","role":"agent"`+c.answer+`}`)
					return
				}
				requests <- r
				w.WriteHeader(http.StatusServiceUnavailable)
			}))
			defer server.Close()
			client := New(Config{Settings: Settings{
				URL:      "ws://" + c.user + strings.TrimPrefix(server.URL, "http://") + "/ws?keep=1",
				TokenURL: server.URL + "/api/token",
			}})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- client.Run(ctx, nobody{}) }()
			r := <-requests
			cancel()
			<-done
			query, auth := r.URL.RawQuery, r.Header.Get("Authorization")
			if c.header && (query != "keep=1" || auth != "Bearer tok-1") {
				t.Errorf("query %q, Authorization %q; want the token in the header only", query, auth)
			}
			if !c.header && (query != "keep=1&token=tok-1" || strings.HasPrefix(auth, "Bearer")) {
				t.Errorf("query %q, Authorization %q; want the token in the query only", query, auth)
			}
			if basic := strings.HasPrefix(auth, "Basic"); basic != (c.user != "") {
				t.Errorf("Authorization %q", auth)
			}
		})
	}
}

// nobody is a Handler that does nothing.
type nobody struct{ Handler }

func (nobody) Status(Status) {}

func FuzzParseToken(f *testing.F) {
	f.Add([]byte(`{"token":"t","peer_id":"agent-001","role":"agent"}`))
	f.Add([]byte(`{"token":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseToken(b)
		if err == nil && (got.Token == "" || got.PeerID == "" || got.Role == "") {
			t.Fatalf("accepted %q as %+v", b, got)
		}
		exact(t, b, err, "token", "peer_id", "role")
	})
}

func TestConfigURL(t *testing.T) {
	for _, c := range []struct{ token, want string }{
		{"http://localhost:8080/api/token", "http://localhost:8080/api/config"},
		{"https://x.org/mesh/api/token?k=1#f", "https://x.org/mesh/api/config"},
		{"http://x/token", "http://x/config"},
		{"http://x/api/token/", "http://x/api/config"},
		{"http://x/api/login", ""},
		{"http://x", ""},
		{"http://x/api/mytoken", ""},
		{"http://\x7f", ""},
	} {
		u, err := configURL(c.token)
		if (err == nil) != (c.want != "") || err == nil && u.String() != c.want {
			t.Errorf("configURL(%q) = %v, %v, want %q", c.token, u, err, c.want)
		}
	}
}

func TestParseICEServers(t *testing.T) {
	servers, dropped, err := parseICEServers([]byte(`{"iceServers":[
		{"urls":"stun:a:3478"},
		{"urls":["turn:b","turns:b"],"username":"1:mesh","credential":"p"},
		{"urls":["turn:c"]},
		{"urls":["http://d"]},
		{"urls":["stun:"]},
		{"urls":[]},
		{"urls":7},
		{},
		null,
		7
	]}`))
	if err != nil || len(servers) != 2 || len(dropped) != 8 {
		t.Fatalf("%d servers, dropped %q, %v; want 2 and 8", len(servers), dropped, err)
	}
	if servers[0].URLs[0] != "stun:a:3478" || servers[1].Credential != "p" || len(servers[1].URLs) != 2 {
		t.Fatalf("servers %+v", servers)
	}
	if servers, _, err := parseICEServers([]byte(`{}`)); err != nil || len(servers) != 0 {
		t.Fatalf("no list: %v, %v", servers, err)
	}
	if _, _, err := parseICEServers([]byte(`{"iceServers":{}}`)); err == nil {
		t.Fatal("an object was taken for a list")
	}
}

// A password in a URL is in no error, and so in no log.
func TestICEServerErrorsAreBare(t *testing.T) {
	for url, want := range map[string]string{
		"turn:u:hush@host":              `"turn:***@host"`,
		"turns:hush@host:1?transport=x": `"turns:***@host:1?transport=x"`,
		"stun:u@hush@host":              `"stun:***@host"`,
		"u:hush@host":                   `"***@host"`,
		"http://u:hush@host":            `"***@host"`,
		"hush@":                         `"***@"`,
	} {
		err := ICEServer{URLs: []string{url}, Username: "u", Credential: "p"}.Check()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: error %v, want one about %s", url, err, want)
		}
	}
}

func FuzzParseICEServers(f *testing.F) {
	f.Add([]byte(`{"iceServers":[{"urls":"stun:a"},{"urls":["turn:b"],"username":"9:m","credential":"p"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		servers, _, err := parseICEServers(b)
		if err != nil {
			return
		}
		for _, s := range servers {
			if err := s.Check(); err != nil {
				t.Fatalf("unusable server %+v: %v", s, err)
			}
		}
		if d := refreshIn(servers, time.Unix(1_700_000_000, 0)); d < 0 {
			t.Fatalf("refresh in %v", d)
		}
	})
}

func TestRefreshIn(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	user := func(names ...string) (servers []ICEServer) {
		for _, n := range names {
			servers = append(servers, ICEServer{Username: n})
		}
		return servers
	}
	for _, c := range []struct {
		name    string
		servers []ICEServer
		want    time.Duration
	}{
		{"none", nil, 0},
		{"fixed credentials", user("bob", "", "bob:7", "12"), 0},
		{"one", user("1700000400:mesh"), 300 * time.Second},
		{"the first counts", user("1700086400:mesh", "1700000400:mesh"), 300 * time.Second},
		{"expired already", user("1600000000:mesh"), 1},
		{"absurd", user("9223372036854775807:mesh"), 0},
	} {
		if got := refreshIn(c.servers, now); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
