package signal_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/signaling"
)

// serve runs the real signaling server for the keys key-a, key-b, ... of the peers a, b, ...
func serve(t *testing.T, peers ...string) (cfg func(peer string) signal.Config, server *signaling.Server) {
	t.Helper()
	keys := map[string]signaling.Key{}
	for _, p := range peers {
		keys["key-"+p] = signaling.Key{PeerID: p, Role: "agent"}
	}
	server, err := signaling.New(signaling.Config{Secret: strings.Repeat("s", 32), Keys: keys, AllowWeakSecrets: true})
	if err != nil {
		t.Fatal(err)
	}
	hs := httptest.NewServer(http.StripPrefix("/mesh", server))
	t.Cleanup(func() {
		_ = server.Close()
		hs.Close()
	})
	return func(peer string) signal.Config {
		return signal.Config{Settings: signal.Settings{URL: hs.URL + "/mesh/ws", TokenURL: hs.URL + "/mesh/api/token", APIKey: "key-" + peer}}
	}, server
}

func TestTwoPeersMeet(t *testing.T) {
	cfg, _ := serve(t, "a", "b")
	a, b := newRecorder(), newRecorder()
	ca, cb := signal.New(cfg("a")), signal.New(cfg("b"))
	if err := ca.Send(signal.Message{Type: signal.Heartbeat}); !errors.Is(err, signal.ErrOffline) {
		t.Fatalf("Send before Run: %v, want ErrOffline", err)
	}
	start(t, ca, a)
	if e := a.next(t); e.kind != "status" || e.status.State != signal.Connecting || e.status.Err != nil {
		t.Fatalf("first event %+v, want connecting", e)
	}
	if e := a.next(t); e.status != (signal.Status{State: signal.Connected, PeerID: "a"}) {
		t.Fatalf("second event %+v, want connected", e)
	}
	if e := a.next(t); e.kind != "registered" || e.self != "a" || len(e.peers) != 0 {
		t.Fatalf("third event %+v, want registered", e)
	}
	stopB := start(t, cb, b)
	if e := b.waitKind(t, "registered"); e.self != "b" || !slices.Equal(e.peers, []string{"a"}) {
		t.Fatalf("b registered %+v, want peer a", e)
	}
	offer := signal.Message{Type: signal.Offer, TargetID: "a", Payload: json.RawMessage(`{"sdp":"v=0\r\n"}`)}
	if err := cb.Send(offer); err != nil {
		t.Fatal(err)
	}
	offer.PeerID = "b"
	if e := a.next(t); !reflect.DeepEqual(e.msg, offer) {
		t.Fatalf("a received %+v, want %+v", e, offer)
	}
	if err := ca.Send(signal.Message{Type: signal.Candidate, TargetID: "ghost"}); err != nil {
		t.Fatal(err)
	}
	e := a.next(t)
	var p signal.ErrorPayload
	if err := json.Unmarshal(e.msg.Payload, &p); err != nil || e.msg.Type != signal.ErrorType ||
		p != (signal.ErrorPayload{Code: signal.CodePeerUnavailable, TargetID: "ghost"}) {
		t.Fatalf("a received %+v, want peer_unavailable for ghost", e)
	}
	stopB()
	b.waitKind(t, "disconnected")
	if err := cb.Send(offer); !errors.Is(err, signal.ErrOffline) {
		t.Fatalf("Send after Run: %v, want ErrOffline", err)
	}
}

// TestReconnect loses the server and finds its successor at the same address.
func TestReconnect(t *testing.T) {
	f := newFake(t)
	var seen []string
	tokens := make(chan string, 10)
	kill := make(chan struct{})
	f.ws = func(ctx context.Context, c *websocket.Conn) {
		if err := register(ctx, c); err != nil {
			return
		}
		<-kill
	}
	upgrade := f.Config.Handler
	f.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ws" && r.Header.Get("X-API-Key") == "" {
			tokens <- r.URL.Query().Get("token")
		}
		upgrade.ServeHTTP(w, r)
	})
	r := newRecorder()
	stop := start(t, f.client(), r)
	for range 3 {
		r.waitKind(t, "registered")
		seen = append(seen, <-tokens)
		kill <- struct{}{}
		if e := r.next(t); e.kind != "disconnected" {
			t.Fatalf("%+v, want disconnected", e)
		}
		if e := r.next(t); e.status.State != signal.Connecting || e.status.Err == nil || !strings.Contains(e.status.Err.Error(), f.Listener.Addr().String()) {
			t.Fatalf("%+v, want connecting with an error that names the URL", e)
		}
	}
	if !slices.Equal(seen, []string{"tok-1", "tok-2", "tok-3"}) {
		t.Fatalf("tokens %q, want a fresh one for each connection", seen)
	}
	r.waitKind(t, "registered")
	stop()
	if e := r.next(t); e.kind != "disconnected" {
		t.Fatalf("%+v at the end, want disconnected", e)
	}
	close(kill)
}

// fixture is one line of the protocol's examples.
type fixture struct{ Name, From, To, Expect, Line string }

func fixtures(t *testing.T) (all []fixture) {
	t.Helper()
	f, err := os.Open("../../docs/fixtures/signaling.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var x fixture
		if err := json.Unmarshal(sc.Bytes(), &x); err != nil {
			t.Fatal(err)
		}
		all = append(all, x)
	}
	return all
}

// TestFixturesReceived sends the client, agent-002, every example, in whichever direction it is.
func TestFixturesReceived(t *testing.T) {
	f := newFake(t)
	lines := make(chan string)
	f.ws = func(ctx context.Context, c *websocket.Conn) {
		if err := register(ctx, c); err != nil {
			return
		}
		for line := range lines {
			if err := c.Write(ctx, websocket.MessageText, []byte(line)); err != nil {
				return
			}
		}
		readAll(ctx, c)
	}
	defer close(lines)
	r := newRecorder()
	start(t, f.client(), r)
	r.waitKind(t, "registered")
	const marker = `{"type":"error","peer_id":"registry","payload":{"code":"marker"}}`
	for _, x := range fixtures(t) {
		t.Run(x.Name, func(t *testing.T) {
			lines <- x.Line
			lines <- marker
			var got []event
			for e := r.next(t); !strings.Contains(string(e.msg.Payload), "marker"); e = r.next(t) {
				got = append(got, e)
			}
			var m signal.Message
			_ = json.Unmarshal([]byte(x.Line), &m)
			want := 0
			switch m.Type {
			case signal.PeerList, signal.ErrorType, signal.Left:
				want = 1
			case signal.Offer, signal.Answer, signal.Candidate:
				// From another peer and for this one, or without a target, which the server checks.
				if m.PeerID != "agent-002" && (m.TargetID == "agent-002" || m.TargetID == "") {
					want = 1
				}
			}
			if x.Expect == "ignore" && want != 0 {
				t.Fatal("this test does not know the example")
			}
			if len(got) != want {
				t.Fatalf("events %+v, want %d", got, want)
			}
			if want == 0 {
				return
			}
			switch e := got[0]; m.Type {
			case signal.PeerList:
				var l signal.PeersPayload
				if err := json.Unmarshal(m.Payload, &l); err != nil {
					t.Fatal(err)
				}
				if e.kind != "registered" || len(e.peers) != 0 || !reflect.DeepEqual(e.base, l.Base) { // the list held only the client itself
					t.Fatalf("event %+v", e)
				}
			default:
				if e.kind != "receive" || !reflect.DeepEqual(e.msg, m) {
					t.Fatalf("event %+v, want %+v", e, m)
				}
			}
		})
	}
}

// TestFixturesSent has the client write every example that a sidecar may write.
func TestFixturesSent(t *testing.T) {
	f := newFake(t)
	got := make(chan []byte, 100)
	f.ws = func(ctx context.Context, c *websocket.Conn) {
		if err := register(ctx, c); err != nil {
			return
		}
		for {
			_, b, err := c.Read(ctx)
			if err != nil {
				return
			}
			got <- b
		}
	}
	r := newRecorder()
	c := f.client()
	start(t, c, r)
	r.waitKind(t, "registered")
	for _, x := range fixtures(t) {
		if x.From != "sidecar" || x.Expect != "ok" {
			continue
		}
		t.Run(x.Name, func(t *testing.T) {
			var m signal.Message
			var want, have any
			if err := errors.Join(json.Unmarshal([]byte(x.Line), &m), json.Unmarshal([]byte(x.Line), &want)); err != nil {
				t.Fatal(err)
			}
			if err := c.Send(m); err != nil {
				t.Fatal(err)
			}
			b := <-got
			if err := json.Unmarshal(b, &have); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(have, want) {
				t.Fatalf("sent %s, want %s", b, x.Line)
			}
		})
	}
}

// TestFailures checks what a client reports about a server that does not work. Errors must not contain the
// key or the token.
func TestFailures(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("a redirect was followed, with the key %q and the query %q", r.Header.Get("X-API-Key"), r.URL.RawQuery)
	}))
	defer elsewhere.Close()
	reply := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	const permanent signal.State = "connecting, permanent"
	for _, c := range []struct {
		name    string
		breakIt func(f *fake)
		state   signal.State
		want    []string
	}{
		{"401", func(f *fake) { f.token = reply(401, `{"error":"unknown API key `+apiKey+"\\n\"}") },
			signal.Refused, []string{"/api/token: 401 Unauthorized: unknown API key ***"}},
		{"403", func(f *fake) { f.token = reply(403, `gone`) }, signal.Refused, []string{"/api/token: 403 Forbidden; check the API key"}},
		{"500", func(f *fake) { f.token = reply(500, apiKey) }, signal.Connecting, []string{"/api/token", "500"}},
		{"not JSON", func(f *fake) { f.token = reply(200, apiKey) }, permanent, []string{"/api/token", "not JSON"}},
		{"no peer id", func(f *fake) { f.token = reply(200, `{"token":"t","role":"r"}`) }, permanent, []string{"peer_id: missing"}},
		{"number as token", func(f *fake) { f.token = reply(200, `{"token":1,"peer_id":"x","role":"r"}`) }, permanent, []string{"token: not a string"}},
		{"endless", func(f *fake) { f.token = reply(200, strings.Repeat(" ", 1<<21)) }, permanent, []string{"longer than"}},
		{"redirect of the key", func(f *fake) { f.token = http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect).ServeHTTP },
			permanent, []string{"307", `redirects are not followed; use "` + elsewhere.URL + `"`}},
		{"404", func(f *fake) { f.token = http.NotFound }, permanent, []string{"/api/token: 404 Not Found; is there a signaling server at "}},
		{"429", func(f *fake) { f.token = reply(429, "") }, signal.Connecting, []string{"429"}},
		{"503", func(f *fake) { f.token = reply(503, `{"error":"full"}`) }, signal.Connecting, []string{"503 Service Unavailable: full"}},
		{"another success", func(f *fake) { f.token = reply(204, "") }, permanent, []string{"204"}},
		{"Basic authentication", func(f *fake) {
			f.token = func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("WWW-Authenticate", `Basic realm="mesh"`)
				w.WriteHeader(401)
			}
		}, signal.Refused, []string{"401", "put user:password@ into the URL"}},
		{"hangs up", func(f *fake) { f.token = func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) } },
			signal.Connecting, []string{"/api/token", "EOF"}},
		{"ws 401", func(f *fake) { f.upgrade = reply(401, `{"error":"invalid token tok-1"}`) },
			signal.Refused, []string{"/ws: 401", "invalid token ***"}},
		{"ws 404", func(f *fake) { f.upgrade = http.NotFound }, permanent, []string{"/ws: 404 Not Found"}},
		{"ws 200", func(f *fake) { f.upgrade = reply(200, "<html>") }, permanent, []string{"/ws: 200 OK"}},
		{"ws 426", func(f *fake) { f.upgrade = reply(426, "") }, permanent, []string{"/ws: 426", "does not let a WebSocket through"}},
		{"ws 501", func(f *fake) { f.upgrade = reply(501, `{"error":"use Unwrap"}`) }, permanent, []string{"/ws: 501 Not Implemented: use Unwrap"}},
		{"ws 502", func(f *fake) { f.upgrade = reply(502, "") }, signal.Connecting, []string{"/ws: 502"}},
		{"ws redirect", func(f *fake) {
			f.upgrade = http.RedirectHandler("http://h.example/ws?token=tok-1", http.StatusTemporaryRedirect).ServeHTTP
		}, permanent, []string{"/ws: 307", `use "ws://h.example/ws"`}},
		{"ws hangs up", func(f *fake) { f.upgrade = func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) } },
			signal.Connecting, []string{"/ws", "EOF"}},
		{"ws no WebSocket", func(f *fake) {
			f.upgrade = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusSwitchingProtocols) }
		}, permanent, []string{"/ws", "Connection header"}},
		{"closed with a reason", func(f *fake) {
			f.ws = func(_ context.Context, c *websocket.Conn) { _ = c.Close(4321, "go away") }
		}, signal.Connecting, []string{"/ws: closed by the server with code 4321: go away"}},
		{"oversized message", func(f *fake) {
			f.ws = func(ctx context.Context, c *websocket.Conn) {
				_ = c.Write(ctx, websocket.MessageText, make([]byte, 5<<20))
				readAll(ctx, c)
			}
		}, signal.Connecting, []string{"/ws", "too big"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t)
			f.Config.ErrorLog = nil
			c.breakIt(f)
			r := newRecorder()
			start(t, f.client(), r)
			s := r.waitFailure(t)
			state := c.state
			if state == permanent {
				state = signal.Connecting
			}
			if s.State != state || errors.Is(s.Err, signal.ErrRefused) != (c.state == signal.Refused) ||
				errors.Is(s.Err, signal.ErrMisconfigured) != (c.state == permanent) || s.Permanent != (c.state != signal.Connecting) {
				t.Errorf("status %+v, want %s", s, c.state)
			}
			text := s.Err.Error()
			if n := strings.Count(text, "signaling server refused"); n > 1 {
				t.Errorf("error %q says it %d times", text, n)
			}
			for _, w := range append(c.want, f.Listener.Addr().String()) {
				if !strings.Contains(text, w) {
					t.Errorf("error %q does not say %q", text, w)
				}
			}
			for _, secret := range []string{apiKey, "tok-", "token="} {
				if strings.Contains(text, secret) {
					t.Errorf("error %q tells the secret %q", text, secret)
				}
			}
		})
	}
}

// TestReason: the error says why the connection was closed, not what failed as a consequence. Which of the
// client's goroutines is first is chance, hence the rounds.
func TestReason(t *testing.T) {
	for _, c := range []struct {
		name, timing string
		period       time.Duration
		size         int // of what the client sends
		ws           func(ctx context.Context, c *websocket.Conn)
		want         string
		rounds       int
	}{
		{"read", "heartbeat", time.Microsecond, 0, func(ctx context.Context, c *websocket.Conn) { // some write fails, too
			go func() { _ = c.Write(ctx, websocket.MessageText, make([]byte, 5<<20)) }()
			readAll(ctx, c)
		}, "too big", 5},
		{"write", "write", 10 * time.Millisecond, 7 << 20, func(ctx context.Context, c *websocket.Conn) { // the reader fails, too
			_ = register(ctx, c)
			<-ctx.Done()
		}, "sending took over", 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range c.rounds {
				f := newFake(t)
				done := make(chan struct{})
				f.ws = func(ctx context.Context, conn *websocket.Conn) {
					ctx, cancel := context.WithCancel(ctx)
					defer cancel()
					go func() {
						defer cancel()
						<-done
					}()
					c.ws(ctx, conn)
				}
				client := f.client()
				signal.SetTiming(client, c.timing, c.period)
				r := newRecorder()
				stop := start(t, client, r)
				if c.size > 0 {
					r.waitKind(t, "registered")
					if err := client.Send(signal.Message{Type: signal.Offer, TargetID: "x", Payload: json.RawMessage(`"` + strings.Repeat("x", c.size) + `"`)}); err != nil {
						t.Fatal(err)
					}
				}
				if s := r.waitFailure(t); !strings.Contains(s.Err.Error(), c.want) {
					t.Errorf("error %v, want one with %q", s.Err, c.want)
				}
				stop()
				close(done)
			}
		})
	}
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	c := signal.New(signal.Config{Settings: signal.Settings{URL: "ws://u:pw@" + addr + "/ws", TokenURL: "http://u:pw@" + addr + "/api/token?x=pw", APIKey: apiKey}})
	r := newRecorder()
	start(t, c, r)
	text := r.waitFailure(t).Err.Error()
	if !strings.Contains(text, "http://"+addr+"/api/token") || strings.Contains(text, "pw") {
		t.Fatalf("error %q: want the URL without password and query", text)
	}
}

func TestCheck(t *testing.T) {
	good := signal.Config{Settings: signal.Settings{URL: "ws://h/ws", TokenURL: "http://h/api/token"}}
	for _, c := range []struct {
		name   string
		change func(*signal.Config)
		want   string
	}{
		{"good", func(*signal.Config) {}, ""},
		{"no CA file", func(c *signal.Config) { c.CAFile = "none.pem" }, "CAFile: open none.pem"},
		{"no certificate in the CA file", func(c *signal.Config) { c.CAFile = "client_test.go" }, "CAFile: client_test.go holds no PEM certificate"},
		{"certificate without key", func(c *signal.Config) { c.CertFile = "client_test.go" }, "KeyFile: empty"},
		{"key without certificate", func(c *signal.Config) { c.KeyFile = "client_test.go" }, "CertFile: empty"},
		{"no certificate in the file", func(c *signal.Config) { c.CertFile, c.KeyFile = "client_test.go", "client_test.go" }, "CertFile: client_test.go with KeyFile client_test.go: "},
		{"https", func(c *signal.Config) { c.URL, c.TokenURL = "https://h", "https://h" }, ""},
		{"no URL", func(c *signal.Config) { c.URL = "" }, "URL: "},
		{"no scheme", func(c *signal.Config) { c.URL = "localhost:8080/ws" }, "URL: "},
		{"no host", func(c *signal.Config) { c.URL = "ws:///ws" }, "has no host"},
		{"file", func(c *signal.Config) { c.TokenURL = "file:///etc/passwd" }, "TokenURL: "},
		{"ws for the token", func(c *signal.Config) { c.TokenURL = "ws://h" }, "TokenURL: "},
		{"not a URL", func(c *signal.Config) { c.TokenURL = "http://u:secret@h:\x7f" }, "TokenURL: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := good
			c.change(&cfg)
			err := cfg.Check()
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
				t.Fatalf("error %v, want one with %q", err, c.want)
			}
			if strings.HasPrefix(err.Error(), "CAFile") || strings.HasPrefix(err.Error(), "CertFile") || strings.HasPrefix(err.Error(), "KeyFile") {
				return // Run tries these again: files come and go
			}
			if runErr := signal.New(cfg).Run(t.Context(), newRecorder()); runErr == nil || runErr.Error() != err.Error() {
				t.Fatalf("Run: %v, want %v", runErr, err)
			}
		})
	}
}

// TestRetryDelays: whoever has lost the server is back within 10 s, and a thousand of them do not come at once.
func TestRetryDelays(t *testing.T) {
	for failures := range 40 {
		at, most := map[time.Duration]int{}, 0 // by tenths of the longest delay
		for range 1000 {
			d := signal.RetryDelay(failures)
			if d <= 0 || d > 10*time.Second {
				t.Fatalf("%v after %d failures", d, failures)
			}
			tenth := d / min(time.Second, 50*time.Millisecond<<min(failures, 20))
			at[tenth]++
			most = max(most, at[tenth])
		}
		if most > 300 {
			t.Errorf("%d of 1000 come within a tenth of the time after %d failures", most, failures)
		}
	}
}

func TestRefusedThenAccepted(t *testing.T) {
	f := newFake(t)
	accept := f.token
	tries := 0
	f.token = func(w http.ResponseWriter, r *http.Request) {
		if tries++; tries < 4 {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		accept(w, r)
	}
	r := newRecorder()
	start(t, f.client(), r)
	r.waitState(t, signal.Refused)
	if e := r.next(t); e.status.State != signal.Connected {
		t.Fatalf("after refused: %+v, want connected and no repetition", e)
	}
}

// TestEmptyKeyKeepsItsID: in development mode a client with an empty key gets a random id, which it keeps
// when it reconnects.
func TestEmptyKeyKeepsItsID(t *testing.T) {
	server, err := signaling.New(signaling.Config{Dev: true})
	if err != nil {
		t.Fatal(err)
	}
	var current atomic.Pointer[signaling.Server]
	current.Store(server)
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		current.Load().ServeHTTP(w, r)
	}))
	defer hs.Close()
	c := signal.New(signal.Config{Settings: signal.Settings{URL: hs.URL + "/ws", TokenURL: hs.URL + "/api/token"}})
	signal.HurryUp(c)
	r := newRecorder()
	defer start(t, c, r)()
	first := r.waitKind(t, "registered").self
	second, err := signaling.New(signaling.Config{Dev: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = second.Close() }()
	current.Store(second)
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if again := r.waitKind(t, "registered").self; first == "" || again != first {
		t.Fatalf("id %q became %q", first, again)
	}
}

func TestICEServers(t *testing.T) {
	f := newFake(t)
	fetched := 0
	f.config = func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "Bearer tok-1" {
			t.Errorf("Authorization %q", got)
		}
		if fetched++; fetched == 2 {
			w.WriteHeader(http.StatusInternalServerError) // a failed refresh is tried again
			return
		}
		_, _ = fmt.Fprintf(w, `{"iceServers":[{"urls":["turn:x"],"username":"%d:mesh","credential":"%d"}]}`, time.Now().Unix(), fetched)
	}
	cfg := f.clientConfig()
	cfg.FetchICE = true
	c := signal.New(cfg)
	signal.SetTiming(c, "refresh", time.Millisecond)
	r := newRecorder()
	start(t, c, r)
	if e := r.next(t); e.kind != "status" {
		t.Fatalf("%+v, want connecting", e)
	}
	if e := r.next(t); e.kind != "ice" || e.ice[0].Credential != "1" {
		t.Fatalf("%+v, want the ICE servers before anything else", e)
	}
	if e := r.waitKind(t, "ice"); e.ice[0].Credential != "3" { // perhaps before it is registered
		t.Fatalf("%+v, want the third answer", e)
	}
}

// TestICEServersWithToken: ICE servers that come with the token are fetched only when they expire.
func TestICEServersWithToken(t *testing.T) {
	f := newFake(t)
	f.token = func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"token":"tok-1","peer_id":"agent-002","role":"agent",
			"iceServers":[{"urls":["turn:x"],"username":"%d:mesh","credential":"with the token"}]}`, time.Now().Unix())
	}
	f.config = func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"iceServers":[{"urls":["stun:later"]}]}`))
	}
	cfg := f.clientConfig()
	cfg.FetchICE = true
	c := signal.New(cfg)
	signal.SetTiming(c, "refresh", time.Millisecond)
	r := newRecorder()
	start(t, c, r)
	if e := r.waitKind(t, "ice"); e.ice[0].Credential != "with the token" {
		t.Fatalf("%+v, want the servers that came with the token", e)
	}
	if e := r.waitKind(t, "ice"); e.ice[0].URLs[0] != "stun:later" {
		t.Fatalf("%+v, want those of /api/config", e)
	}
}

// TestICEServersOfOurServer: the client gets TURN credentials from our own server, which gives them to holders of a
// token or key only, at the start and again before they expire.
func TestICEServersOfOurServer(t *testing.T) {
	server, err := signaling.New(signaling.Config{
		Secret: strings.Repeat("s", 32), Keys: map[string]signaling.Key{"the key of agent a": {PeerID: "a", Role: "agent"}},
		TURNURL: "turn:t", TURNSecret: strings.Repeat("t", 32), TURNLifetime: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	hs := httptest.NewServer(server)
	t.Cleanup(func() {
		_ = server.Close()
		hs.Close()
	})
	for name, user := range map[string]string{"token": "", "key, beside the credentials of a proxy": "u:p@"} {
		t.Run(name, func(t *testing.T) {
			c := signal.New(signal.Config{FetchICE: true, Settings: signal.Settings{
				URL:      strings.Replace(hs.URL, "//", "//"+user, 1) + "/ws",
				TokenURL: strings.Replace(hs.URL, "//", "//"+user, 1) + "/api/token",
				APIKey:   "the key of agent a",
			}})
			signal.SetTiming(c, "refresh", time.Millisecond)
			r := newRecorder()
			defer start(t, c, r)()
			for range 2 {
				if e := r.waitKind(t, "ice"); len(e.ice) != 1 || e.ice[0].Credential == "" {
					t.Fatalf("%+v, want a TURN server with credentials", e)
				}
			}
		})
	}
}

// TestICEServersMeanwhile: the WebSocket connects while the ICE servers are fetched, and registers then.
func TestICEServersMeanwhile(t *testing.T) {
	f := newFake(t)
	connected := make(chan struct{})
	answered := make(chan struct{})
	f.config = func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-connected:
		case <-r.Context().Done():
		}
		close(answered)
		_, _ = w.Write([]byte(`{"iceServers":[{"urls":["stun:x"]}]}`))
	}
	f.ws = func(ctx context.Context, c *websocket.Conn) {
		close(connected)
		_, _, err := c.Read(ctx)
		select {
		case <-answered:
		default:
			t.Errorf("registered before the ICE servers were known (%v)", err)
		}
		_ = c.Write(ctx, websocket.MessageText, []byte(`{"type":"peer_list","peer_id":"registry","payload":{"peers":[]}}`))
		readAll(ctx, c)
	}
	cfg := f.clientConfig()
	cfg.FetchICE = true
	r := newRecorder()
	start(t, signal.New(cfg), r)
	r.next(t) // connecting
	if e := r.next(t); e.kind != "ice" {
		t.Fatalf("%+v, want the ICE servers before anything else", e)
	}
	r.waitKind(t, "registered")
}

// TestICEServersLate: a server may close a WebSocket that does not register, so the client registers without
// ICE servers that take too long.
func TestICEServersLate(t *testing.T) {
	f := newFake(t)
	registered := make(chan struct{})
	f.config = func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-registered:
		case <-r.Context().Done():
		}
		_, _ = w.Write([]byte(`{"iceServers":[{"urls":["stun:x"]}]}`))
	}
	cfg := f.clientConfig()
	cfg.FetchICE = true
	c := signal.New(cfg)
	signal.SetTiming(c, "patience", time.Millisecond)
	r := newRecorder()
	start(t, c, r)
	r.next(t) // connecting
	r.next(t) // connected
	if e := r.next(t); e.kind != "registered" {
		t.Fatalf("%+v, want to be registered", e)
	}
	close(registered)
	if e := r.next(t); e.kind != "ice" {
		t.Fatalf("%+v, want the ICE servers", e)
	}
}

// TestNoICEServers: the client registers with a server that has nothing useful at /api/config.
func TestNoICEServers(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"404":      http.NotFound,
		"nonsense": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.config = h
			cfg := f.clientConfig()
			cfg.FetchICE = true
			r := newRecorder()
			start(t, signal.New(cfg), r)
			r.waitKind(t, "registered")
		})
	}
}

// TestEarlyMessagesWait: a relayed offer may come before the peer_list.
func TestEarlyMessagesWait(t *testing.T) {
	f := newFake(t)
	f.ws = func(ctx context.Context, c *websocket.Conn) {
		for i := range 3 {
			_ = c.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"type":"offer","peer_id":"p%d","target_id":"agent-002"}`, i))
		}
		f.talk(ctx, c)
	}
	r := newRecorder()
	start(t, f.client(), r)
	r.waitKind(t, "registered")
	for i := range 3 {
		if e := r.next(t); e.kind != "receive" || e.msg.PeerID != fmt.Sprintf("p%d", i) {
			t.Fatalf("%+v, want the offer of p%d", e, i)
		}
	}
}

// TestFlood: a server that sends without end before its peer_list fills neither the memory nor the log.
func TestFlood(t *testing.T) {
	f := newFake(t)
	large := strings.Repeat("x", 200_000)
	f.ws = func(ctx context.Context, c *websocket.Conn) {
		for range 40 {
			_ = c.Write(ctx, websocket.MessageText, []byte(`{"type":"offer","peer_id":"p","target_id":"agent-002","payload":{"sdp":"`+large+`"}}`))
			_ = c.Write(ctx, websocket.MessageText, []byte("what?"))
		}
		_ = register(ctx, c)
		_ = c.Write(ctx, websocket.MessageText, []byte(`{"type":"answer","peer_id":"p","target_id":"agent-002"}`))
		readAll(ctx, c)
	}
	var log testutil.LogBuffer
	cfg := f.clientConfig()
	cfg.Log = zerolog.New(&log)
	r := newRecorder()
	start(t, signal.New(cfg), r)
	r.waitKind(t, "registered")
	held := 0
	for r.next(t).msg.Type != signal.Answer {
		held++
	}
	if size := held * len(large); size > 4<<20 || size < 2<<20 {
		t.Errorf("%d bytes were held", size)
	}
	if n := log.Count("dropped"); n > 20 {
		t.Errorf("%d lines in the log", n)
	}
}

// TestNotForUs: messages that cannot be for this client are dropped, and the connection stays.
func TestNotForUs(t *testing.T) {
	f := newFake(t)
	f.ws = func(ctx context.Context, c *websocket.Conn) {
		_ = register(ctx, c)
		for _, text := range []string{
			`{"type":"offer","target_id":"agent-002"}`,
			`{"type":"offer","peer_id":"agent-002","target_id":"agent-002"}`,
			`{"type":"offer","peer_id":"agent-001","target_id":"agent-003"}`,
			`{"type":"register","peer_id":"agent-001"}`,
			`{"type":"heartbeat","peer_id":"agent-001"}`,
			`{"type":1}`,
			``,
			`{"type":"answer","peer_id":"agent-001","target_id":"agent-002"}`,
		} {
			_ = c.Write(ctx, websocket.MessageText, []byte(text))
		}
		readAll(ctx, c)
	}
	r := newRecorder()
	start(t, f.client(), r)
	r.waitKind(t, "registered")
	if e := r.next(t); e.kind != "receive" || e.msg.Type != signal.Answer {
		t.Fatalf("%+v, want only the answer", e)
	}
}

func TestPeerList(t *testing.T) {
	many := make([]string, 5000) // more than the WebSocket library's default of 32 KiB
	for i := range many {
		many[i] = fmt.Sprintf("agent-%05d", i)
	}
	b, err := json.Marshal(append(many, "", "agent-002", many[7]))
	if err != nil {
		t.Fatal(err)
	}
	f := newFake(t)
	f.ws = func(ctx context.Context, c *websocket.Conn) {
		for _, peers := range []string{`"agent-001"`, `{"a":1}`, `[1]`, string(b)} {
			_ = c.Write(ctx, websocket.MessageText, []byte(`{"type":"peer_list","peer_id":"registry","payload":{"peers":`+peers+`}}`))
		}
		readAll(ctx, c)
	}
	r := newRecorder()
	start(t, f.client(), r)
	if e := r.waitKind(t, "registered"); !slices.Equal(e.peers, many) {
		t.Fatalf("%d peers, want the %d of the only good list", len(e.peers), len(many))
	}
}

// TestSilentServers: the client notices servers that accept a connection and then do nothing.
func TestSilentServers(t *testing.T) {
	for _, c := range []struct {
		name, timing, want string
		ws                 func(f *fake) func(context.Context, *websocket.Conn)
	}{
		{"no peer_list", "register", "no peer_list", func(*fake) func(context.Context, *websocket.Conn) { return readAll }},
		{"no pong", "ping", "no pong", func(*fake) func(context.Context, *websocket.Conn) {
			return func(ctx context.Context, c *websocket.Conn) {
				_ = register(ctx, c)
				<-ctx.Done() // without reading there are no pongs
			}
		}},
		{"a message without end", "message", "not complete", func(*fake) func(context.Context, *websocket.Conn) {
			return func(ctx context.Context, c *websocket.Conn) {
				_ = register(ctx, c)
				if w, err := c.Writer(ctx, websocket.MessageText); err == nil {
					_, _ = w.Write(make([]byte, 8<<10)) // less would wait for the next pong
				}
				readAll(ctx, c) // and pings are answered
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t)
			done := make(chan struct{})
			ws := c.ws(f)
			f.ws = func(ctx context.Context, c *websocket.Conn) {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				go func() {
					<-done
					cancel()
				}()
				ws(ctx, c)
			}
			client := f.client()
			signal.SetTiming(client, c.timing, 10*time.Millisecond)
			signal.SetTiming(client, "pong", 50*time.Millisecond)
			r := newRecorder()
			stop := start(t, client, r)
			if s := r.waitFailure(t); !strings.Contains(s.Err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", s.Err, c.want)
			}
			stop()
			close(done)
		})
	}
}

func TestSlowTokenExchange(t *testing.T) {
	f := newFake(t)
	release := make(chan struct{})
	f.token = func(http.ResponseWriter, *http.Request) { <-release }
	c := f.client()
	signal.SetTiming(c, "request", 20*time.Millisecond)
	r := newRecorder()
	stop := start(t, c, r)
	if s := r.waitFailure(t); !errors.Is(s.Err, context.DeadlineExceeded) {
		t.Errorf("error %v, want a timeout", s.Err)
	}
	stop()
	close(release)
}

func TestHeartbeat(t *testing.T) {
	f := newFake(t)
	beats := make(chan signal.Message, 100)
	f.ws = func(ctx context.Context, c *websocket.Conn) {
		if register(ctx, c) != nil {
			return
		}
		_, b, err := c.Read(ctx)
		if err != nil {
			return
		}
		var m signal.Message
		_ = json.Unmarshal(b, &m)
		beats <- m
		readAll(ctx, c)
	}
	c := f.client()
	signal.SetTiming(c, "heartbeat", 10*time.Millisecond)
	start(t, c, newRecorder())
	select {
	case m := <-beats:
		if m.Type != signal.Heartbeat || m.PeerID != "agent-002" {
			t.Fatalf("%+v, want a heartbeat", m)
		}
	case <-time.After(patience):
		t.Fatal("no heartbeat")
	}
}

// TestReplaced: of two instances with one key the older gives way for good.
func TestReplaced(t *testing.T) {
	for _, c := range []struct {
		name          string
		first, second time.Time
		firstStays    bool
	}{
		{name: "unknown starts"},
		{name: "later start", first: time.UnixMilli(1000), second: time.UnixMilli(2000)},
		{name: "earlier start", first: time.UnixMilli(2000), second: time.UnixMilli(1000), firstStays: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, _ := serve(t, "a", "b")
			firstCfg, secondCfg := cfg("a"), cfg("a")
			firstCfg.Started, secondCfg.Started = c.first, c.second
			first, second := newRecorder(), newRecorder()
			errs := [2]chan error{make(chan error, 1), make(chan error, 1)}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			go func() { errs[0] <- signal.New(firstCfg).Run(ctx, first) }()
			first.waitKind(t, "registered")
			go func() { errs[1] <- signal.New(secondCfg).Run(ctx, second) }()
			loser, stays := 0, second
			if c.firstStays {
				loser, stays = 1, first
			} else {
				second.waitKind(t, "registered")
			}
			err := <-errs[loser]
			if !errors.Is(err, signal.ErrReplaced) || !strings.Contains(err.Error(), "another instance with the same API key") {
				t.Fatalf("Run returned %v, want %v", err, signal.ErrReplaced)
			}
			s := []*recorder{first, second}[loser].waitState(t, signal.Replaced)
			if !errors.Is(s.Err, signal.ErrReplaced) || !s.Permanent {
				t.Fatalf("status %+v", s)
			}
			select {
			case e := <-stays.events:
				t.Fatalf("the other one reports %+v", e)
			default:
			}
			cancel()
			if err := <-errs[1-loser]; !errors.Is(err, context.Canceled) {
				t.Fatalf("the other one ended with %v", err)
			}
		})
	}
}

// TestStarted: the start goes into register; the zero time does not.
func TestStarted(t *testing.T) {
	for payload, started := range map[string]time.Time{`{"left":true}`: {}, `{"started":1767225600123,"left":true}`: time.UnixMilli(1767225600123)} {
		f := newFake(t)
		got := make(chan string, 1)
		f.ws = func(ctx context.Context, c *websocket.Conn) {
			_, b, _ := c.Read(ctx)
			got <- string(b)
			readAll(ctx, c)
		}
		cfg := f.clientConfig()
		cfg.Started = started
		start(t, signal.New(cfg), newRecorder())
		if text := <-got; !strings.Contains(text, `"payload":`+payload) {
			t.Errorf("registered with %s, want %s", text, payload)
		}
	}
}

func TestBacklog(t *testing.T) {
	f := newFake(t)
	done := make(chan struct{})
	f.ws = func(ctx context.Context, c *websocket.Conn) {
		_ = register(ctx, c)
		<-done // and nothing more is read
	}
	c := f.client()
	r := newRecorder()
	stop := start(t, c, r)
	r.waitKind(t, "registered")
	big := signal.Message{Type: signal.Offer, TargetID: "x", Payload: json.RawMessage(`"` + strings.Repeat("x", 1<<20) + `"`)}
	var err error
	for range 100 {
		if err = c.Send(big); err != nil {
			break
		}
	}
	if !errors.Is(err, signal.ErrBacklog) {
		t.Errorf("error %v, want ErrBacklog", err)
	}
	stop()
	close(done)
	if err := c.Send(signal.Message{Type: "x", Payload: json.RawMessage(`{`)}); !errors.Is(err, signal.ErrOffline) {
		t.Errorf("error %v after the end, want ErrOffline", err)
	}
}

func TestSendInvalidPayload(t *testing.T) {
	f := newFake(t)
	c, r := f.client(), newRecorder()
	start(t, c, r)
	r.waitKind(t, "registered")
	err := c.Send(signal.Message{Type: "offer", Payload: json.RawMessage(`{`)})
	if err == nil || !strings.Contains(err.Error(), "offer") {
		t.Fatalf("error %v, want one that names the message", err)
	}
}

// TestCheckCredentials: a server that is down is tried again; a refusal and a wrong URL are returned.
func TestCheckCredentials(t *testing.T) {
	answers := make(chan int, 4)
	answers <- http.StatusServiceUnavailable
	answers <- http.StatusOK
	answers <- http.StatusUnauthorized
	answers <- http.StatusNotFound
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		select {
		case status := <-answers:
			w.WriteHeader(status)
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = io.WriteString(w, `{"token":"t","peer_id":"p","role":"agent"}`)
	}))
	defer server.Close()
	c := signal.New(signal.Config{Settings: signal.Settings{URL: "ws://127.0.0.1:1/ws", TokenURL: server.URL + "/api/token", APIKey: "k"}})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.CheckCredentials(ctx); err != nil {
		t.Errorf("a server that accepts the key, at last: %v", err)
	}
	if err := c.CheckCredentials(ctx); !errors.Is(err, signal.ErrRefused) {
		t.Errorf("a server that refuses it: %v", err)
	} else if refused := new(signal.RefusedError); !errors.As(err, &refused) || err.Error() != signal.ErrRefused.Error()+": "+refused.Detail {
		t.Errorf("a refusal without its detail: %v", err)
	}
	if err := c.CheckCredentials(ctx); !errors.Is(err, signal.ErrMisconfigured) {
		t.Errorf("a server without token exchange: %v", err)
	}
	cancel()
	if err := c.CheckCredentials(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of ctx: %v", err)
	}
}

// A certificate file that is away for a moment, as during a renewal, ends nothing.
// A byte order mark at its start is skipped.
func TestFileAway(t *testing.T) {
	f := newFake(t)
	cfg := f.clientConfig()
	cfg.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	c, r := signal.New(cfg), newRecorder()
	signal.HurryUp(c)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx, r) }()
	if s := r.waitState(t, signal.Connecting); s.Err == nil {
		s = r.waitState(t, signal.Connecting)
		if s.Err == nil || !strings.Contains(s.Err.Error(), "CAFile") || s.Permanent {
			t.Errorf("the status is %+v", s)
		}
	}
	pem, err := os.ReadFile(newAuthority(t).file)
	if err != nil {
		t.Fatal(err)
	}
	pem = append([]byte("\uFEFF"), pem...) // as some editors write it
	if err := os.WriteFile(cfg.CAFile, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	r.waitState(t, signal.Connected)
	cancel()
	<-ended
}
