package signaling_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"github.com/chatixia-ai/mesh/signaling"
)

// TestReconnecting: one token, used again and again by a client that reads nothing, holds three connections, one of
// which is ending, and later two.
func TestReconnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveInMemory(t, func(c *signaling.Config) { c.MaxConnections = 1 })
		token := s.token(t, "key-one-of-tests")
		dial := func() (accepted int) {
			for range 20 {
				conn, status, err := s.dialToken(t, token, nil)
				switch {
				case err == nil:
					accepted++
					t.Cleanup(func() { _ = conn.CloseNow() })
					synctest.Wait()
				case status != http.StatusTooManyRequests:
					t.Fatalf("refused with %d, %v", status, err)
				}
			}
			return accepted
		}
		if n := dial(); n != 3 {
			t.Errorf("%d connections at once, want 3", n)
		}
		<-time.After(2 * time.Second)
		if n := dial(); n != 1 {
			t.Errorf("%d more two seconds later, want 1: in place of the one that has ended", n)
		}
	})
}

// TestPerAddress: one address does not get more WebSockets than its share, others do, and its peers may come back.
func TestPerAddress(t *testing.T) {
	s := serve(t, func(c *signaling.Config) { c.MaxPerAddress = 1 })
	from := "10.1.2.3:99"
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = from
		s.sig.ServeHTTP(w, r)
	})
	old, _ := s.join(t, "key-one-of-tests")
	if _, status, err := s.dialToken(t, s.token(t, "key-two-of-tests"), nil); err == nil || status != http.StatusTooManyRequests {
		t.Fatalf("another peer from the same address: %d, %v, want 429", status, err)
	}
	s.dial(t, "key-one-of-tests").register()
	_, _ = old.closed()
	from = "10.1.2.4:99"
	s.dial(t, "key-two-of-tests").register()
}

// requester sends requests to a server without a network, from any address.
type requester struct {
	sig  *signaling.Server
	from string
}

func (q *requester) do(method, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	r.RemoteAddr = q.from
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	q.sig.ServeHTTP(w, r)
	return w
}

// guess presents wrong keys until there is a response other than 401, and returns how many there were before.
func (q *requester) guess(t *testing.T, header ...string) int {
	t.Helper()
	for n := range 1000 {
		w := q.do("POST", "/api/token", append([]string{"X-API-Key", fmt.Sprintf("a wrong key %d", n)}, header...)...)
		if w.Code != http.StatusUnauthorized {
			if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
				t.Fatalf("guess %d: %d %v", n, w.Code, w.Header())
			}
			return n
		}
	}
	t.Fatal("a thousand guesses")
	return 0
}

// TestGuesses: an address that guesses keys or tokens is stopped, and others are not.
func TestGuesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveInMemory(t, nil)
		q := &requester{s.sig, "[2001:db8::1]:1000"}
		if n := q.guess(t); n != signaling.DefaultMaxGuesses {
			t.Errorf("%d guesses, want %d", n, signaling.DefaultMaxGuesses)
		}
		right := func() int { return q.do("POST", "/api/token", "X-API-Key", "key-one-of-tests").Code }
		for _, from := range []string{"[2001:db8::1]:1000", "[2001:db8::ffff:2]:1000"} {
			q.from = from
			if right() != http.StatusTooManyRequests || q.do("GET", "/ws?token=x").Code != http.StatusTooManyRequests ||
				q.do("GET", "/api/config", "Authorization", "Bearer x").Code != http.StatusTooManyRequests {
				t.Errorf("%s goes on", from)
			}
			if q.do("GET", "/healthz").Code != http.StatusOK || q.do("GET", "/api/config").Code != http.StatusOK {
				t.Errorf("%s cannot even ask for what is public", from)
			}
		}
		for _, from := range []string{"[2001:db8:0:1::1]:1000", "192.0.2.1:1", "192.0.2.2:1"} {
			q.from = from
			if right() != http.StatusOK {
				t.Errorf("%s is stopped for others", from)
			}
		}
		q.from = "[2001:db8::1]:1000"
		<-time.After(time.Second)
		if n := q.guess(t); n != signaling.DefaultMaxGuesses/60 {
			t.Errorf("%d guesses after a second", n)
		}
		<-time.After(time.Minute)
		if right() != http.StatusOK {
			t.Error("still stopped after a minute")
		}
	})
}

// TestNoGuesses: a large office with expired tokens, and scanners without any, are not taken for guessing.
func TestNoGuesses(t *testing.T) {
	s := serve(t, nil)
	q := &requester{s.sig, "192.0.2.1:1"}
	old := jwt.MapClaims{"sub": "agent-001", "role": "agent", "exp": time.Now().Add(-time.Minute).Unix()}
	expired, err := jwt.NewWithClaims(jwt.SigningMethodHS256, old).SignedString([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 * signaling.DefaultMaxGuesses {
		for _, w := range []*httptest.ResponseRecorder{q.do("GET", "/ws?token="+expired), q.do("GET", "/ws"), q.do("POST", "/api/token")} {
			if w.Code != http.StatusUnauthorized {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
		}
	}
	if w := q.do("POST", "/api/token", "X-API-Key", "key-one-of-tests"); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
}

// TestTrustedProxy: behind a trusted proxy each client has its own limits, and cannot choose whose.
func TestTrustedProxy(t *testing.T) {
	s := serve(t, func(c *signaling.Config) {
		c.MaxGuesses = 10
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}
	})
	q := &requester{s.sig, "10.0.0.7:1"}
	right := func(forwarded string) int {
		return q.do("POST", "/api/token", "X-API-Key", "key-one-of-tests", "X-Forwarded-For", forwarded).Code
	}
	if n := q.guess(t, "X-Forwarded-For", "203.0.113.5, 198.51.100.1", "X-Forwarded-For", "10.0.0.8"); n != 10 {
		t.Errorf("%d guesses", n)
	}
	for forwarded, want := range map[string]int{
		"198.51.100.1":               429,
		"203.0.113.9, 198.51.100.1":  429, // what a client claims is to the left
		"203.0.113.5":                200,
		"198.51.100.1, 198.51.100.2": 200,
	} {
		if got := right(forwarded); got != want {
			t.Errorf("%s: %d, want %d", forwarded, got, want)
		}
	}
	q.from = "192.0.2.1:1" // not a trusted proxy
	q.guess(t, "X-Forwarded-For", "203.0.113.5")
	if got := right("203.0.113.6"); got != 429 {
		t.Errorf("%d for an address that claims to be a proxy", got)
	}
	q.from = "10.0.0.7:1"
	if got := right("203.0.113.5"); got != 200 {
		t.Errorf("%d for the one it named", got)
	}
}

// TestLogFloods: whatever outsiders and peers do again and again, the log gets a few short lines, with the number of
// those left out.
func TestLogFloods(t *testing.T) {
	const n = 200
	requests := func(method, path string, header ...string) func(*testing.T, *site) {
		return func(_ *testing.T, s *site) {
			q := &requester{s.sig, "192.0.2.1:1"}
			for range n {
				q.do(method, path, header...)
			}
		}
	}
	messages := func(text string) func(*testing.T, *site) {
		return func(t *testing.T, s *site) {
			p := s.dial(t, "key-one-of-tests")
			reader := make(chan struct{})
			go func() {
				defer close(reader)
				for {
					if _, _, err := p.Read(t.Context()); err != nil {
						return
					}
				}
			}()
			for range n {
				p.send(text)
			}
			_ = p.CloseNow()
			<-reader
		}
	}
	long := strings.Repeat("long", 500)
	alg, _ := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{}).SignedString(jwt.UnsafeAllowNoneSignatureType)
	alg = strings.Replace(alg, strings.SplitN(alg, ".", 2)[0], jwtHeader(`{"typ":"JWT","alg":"`+long+`"}`), 1) + "x"
	for name, flood := range map[string]func(*testing.T, *site){
		"wrong keys":         requests("POST", "/api/token", "X-API-Key", "wrong"),
		"wrong tokens":       requests("GET", "/ws?token="+alg),
		"no keys":            requests("POST", "/api/token"),
		"right keys":         requests("POST", "/api/token", "X-API-Key", "key-one-of-tests"),
		"ICE servers":        requests("GET", "/api/config"),
		"forwarded":          requests("GET", "/healthz", "X-Forwarded-For", long),
		"not JSON":           messages("x"),
		"unknown type":       messages(`{"type":"` + long + `","peer_id":"agent-001"}`),
		"another's name":     messages(`{"type":"offer","peer_id":"` + long + `"}`),
		"registered again":   messages(`{"type":"register","peer_id":"agent-001"}`),
		"unknown target":     messages(`{"type":"offer","peer_id":"agent-001","target_id":"` + long + `"}`),
		"invalid field":      messages(`{"type":"register","peer_id":"agent-001","payload":{"started":"` + long + `"}}`),
		"refused WebSockets": floodHandshakes,
		"reconnecting":       floodConnections,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serveInMemory(t, func(c *signaling.Config) { c.TURNURL, c.TURNSecret = "turn:t", turnSecret })
				flood(t, s)
				lines := strings.Split(strings.TrimSpace(s.log.String()), "\n")
				if len(lines) > 50 {
					t.Errorf("%d lines in the log, such as %.300s", len(lines), lines[len(lines)-1])
				}
				for _, line := range lines {
					if len(line) > 700 {
						t.Errorf("a line of %d bytes: %.300s", len(line), line)
					}
				}
			})
		})
	}
}

// jwtHeader encodes the first part of a token.
func jwtHeader(text string) string { return (&jwt.Token{}).EncodeSegment([]byte(text)) }

// floodHandshakes opens WebSockets that fail, with a long reason.
func floodHandshakes(t *testing.T, s *site) {
	token := s.token(t, "key-one-of-tests")
	for range 60 {
		s.do(t, "GET", "/ws?token="+token, "Upgrade", "websocket", "Connection", "Upgrade", "Sec-WebSocket-Version", strings.Repeat("x", 3000))
	}
}

func floodConnections(t *testing.T, s *site) {
	token := s.token(t, "key-one-of-tests")
	for range 45 {
		conn, _, err := s.dialToken(t, token, nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.CloseNow()
		synctest.Wait()
	}
}

// TestLeftOut: the log says how many lines it lacks.
func TestLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveInMemory(t, nil)
		q := &requester{s.sig, "192.0.2.1:1"}
		for range 120 {
			q.do("POST", "/api/token", "X-API-Key", "wrong")
		}
		q.from = "192.0.2.2:1"
		q.do("POST", "/api/token", "X-API-Key", "wrong")
		if log := s.log.String(); strings.Count(log, "\n") != 42 || !strings.Contains(log, `"left_out":80`) {
			t.Errorf("the log does not say that 80 lines are left out:\n%s", log)
		}
	})
}

// TestCredentialsNeedToken: servers with credentials are for holders of a token or key.
func TestCredentialsNeedToken(t *testing.T) {
	change := func(c *signaling.Config) {
		c.ICEServers = []signaling.ICEServer{{URLs: []string{"stun:s"}}, {URLs: []string{"turn:fixed"}, Username: "u", Credential: "p"}}
		c.TURNURL, c.TURNSecret = "turn:t", turnSecret
	}
	s := serve(t, change)
	token := s.token(t, "key-one-of-tests")
	anonymous := serve(t, func(c *signaling.Config) { change(c); c.AllowAnonymousTURN = true })
	for _, c := range []struct {
		name    string
		site    *site
		path    string
		header  []string
		status  int
		servers int
	}{
		{"nothing", s, "", nil, 200, 1},
		{"the credentials of a proxy", s, "", []string{"Authorization", "Basic dTpw"}, 200, 1},
		{"token", s, "", []string{"Authorization", "Bearer " + token}, 200, 3},
		{"token in the query", s, "?token=" + token, nil, 200, 3},
		{"key", s, "", []string{"X-API-Key", "key-one-of-tests", "Authorization", "Basic dTpw"}, 200, 3},
		{"device token", s, "", []string{"X-Device-Token", "key-one-of-tests"}, 200, 3},
		{"wrong token", s, "", []string{"Authorization", "Bearer " + token[:len(token)-2]}, 401, 0},
		{"wrong key", s, "", []string{"X-API-Key", "key-one-of-test"}, 401, 0},
		{"nothing, if that is allowed", anonymous, "", nil, 200, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body := c.site.do(t, "GET", "/api/config"+c.path, c.header...)
			servers, _ := body["iceServers"].([]any)
			if status != c.status || len(servers) != c.servers {
				t.Errorf("%d %v, want %d and %d servers", status, body, c.status, c.servers)
			}
		})
	}
}

// TestTokenLastsWithConnection: a token that has expired counts as long as the connection that was opened with it.
func TestTokenLastsWithConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveInMemory(t, func(c *signaling.Config) { c.TURNURL, c.TURNSecret = "turn:t", turnSecret })
		token, other := s.token(t, "key-one-of-tests"), s.token(t, "key-two-of-tests")
		conn, _, err := s.dialToken(t, token, nil)
		if err != nil {
			t.Fatal(err)
		}
		reading := conn.CloseRead(t.Context())
		<-time.After(2 * signaling.TokenLifetime)
		// The connections that s.do has kept are too old by now for some servers.
		s.Client().CloseIdleConnections()
		config := func(token string) int {
			q := &requester{s.sig, "192.0.2.1:1"}
			w := q.do("GET", "/api/config", "Authorization", "Bearer "+token)
			var body struct{ ICEServers []signaling.ICEServer }
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code == 200 && len(body.ICEServers) != 1 {
				t.Errorf("%s, %v", w.Body, err)
			}
			return w.Code
		}
		if config(token) != 200 || config(other) != 401 {
			t.Errorf("%d with the connection's token, want 200; %d with one of no connection, want 401", config(token), config(other))
		}
		if _, status, err := s.dialToken(t, token, nil); err == nil || status != 401 {
			t.Errorf("another connection with it: %d, %v", status, err)
		}
		_ = conn.CloseNow()
		<-reading.Done()
		synctest.Wait()
		if got := config(token); got != 401 {
			t.Errorf("%d after the connection, want 401", got)
		}
	})
}

// TestPlainHTTPIsLogged: keys over plain HTTP from another machine are, once.
func TestPlainHTTPIsLogged(t *testing.T) {
	s := serve(t, func(c *signaling.Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.7/32")}
	})
	for _, from := range []string{"127.0.0.1:1", "[::1]:1", "10.0.0.7:1"} {
		(&requester{s.sig, from}).do("POST", "/api/token", "X-API-Key", "key-one-of-tests")
	}
	if strings.Contains(s.log.String(), "unencrypted") {
		t.Errorf("a warning about this machine or a trusted proxy:\n%s", s.log)
	}
	for range 3 {
		(&requester{s.sig, "192.0.2.1:1"}).do("POST", "/api/token", "X-API-Key", "key-one-of-tests")
	}
	if n := s.log.Count("unencrypted"); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
}

// TestListener: idle connections, from one address or several, give way to new ones, and WebSockets do not.
func TestListener(t *testing.T) {
	for name, addresses := range map[string]int{"one address": 1, "several": 5} {
		t.Run(name, func(t *testing.T) {
			s := limited(t, func(c *signaling.Config) { c.MaxConnections, c.MaxPerAddress = 20, 8 })
			peer := s.dial(t, "key-one-of-tests")
			var idle []net.Conn
			for i := range 100 {
				from := net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+i%addresses))}
				c, err := (&net.Dialer{LocalAddr: &from}).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
				if err != nil {
					t.Skipf("this system has one loopback address: %v", err)
				}
				t.Cleanup(func() { _ = c.Close() })
				idle = append(idle, c)
			}
			s.accepted(t)
			peer.register()
			open := 0
			for _, c := range idle {
				if !ended(t, c) {
					open++
				}
			}
			want := min(8+2+8, 20+5+8)
			if addresses > 1 {
				want = 20 + 5 + 8
			}
			if open == 0 || open > want-1 { // one is the WebSocket
				t.Errorf("%d idle connections are open, want some, at most %d", open, want-1)
			}
		})
	}
}

// TestManyFromFewAddresses: who has one connection keeps it, however many come from a few other addresses.
func TestManyFromFewAddresses(t *testing.T) {
	s := limited(t, func(c *signaling.Config) { c.MaxConnections, c.MaxPerAddress = 20, 16 })
	dial := func(host byte) net.Conn {
		from := net.TCPAddr{IP: net.IPv4(127, 0, 0, host)}
		c, err := (&net.Dialer{LocalAddr: &from}).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
		if err != nil {
			t.Skipf("this system has one loopback address: %v", err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	honest := dial(9)
	responses := bufio.NewReader(honest)
	ask := func() error {
		_, _ = io.WriteString(honest, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
		resp, err := http.ReadResponse(responses, nil)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
		}
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		dial(byte(10 + i%4))
	}
	s.log.Wait(t, "to make room")
	s.accepted(t)
	if err := ask(); err != nil {
		t.Errorf("the connection of an honest client was closed for those of a few addresses: %v", err)
	}
}

// TestListenerFullOfWebSockets: a connection for which there is no room is closed, and one that ends makes room.
func TestListenerFullOfWebSockets(t *testing.T) {
	s := limited(t, func(c *signaling.Config) { c.MaxConnections, c.MaxPerAddress = 1, 1 }) // 9 sockets
	hijack := http.NewServeMux()
	hijack.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(c, "hijacked\n")
		t.Cleanup(func() { _ = c.Close() })
	})
	s.Config.Handler = hijack
	dial := func() (net.Conn, error) {
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		_, err = bufio.NewReader(c).ReadString('\n')
		return c, err
	}
	for i := range 9 {
		if _, err := dial(); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	if _, err := dial(); err == nil {
		t.Fatal("a tenth connection")
	}
	s.log.Wait(t, "connection refused")
}

// limited is serve with a Listener.
func limited(t *testing.T, change func(*signaling.Config)) *site {
	t.Helper()
	s := serve(t, change)
	s.Server.Close()
	web := httptest.NewUnstartedServer(s.sig)
	l := s.sig.Limit(web.Listener)
	web.Listener, web.Config.ConnState = l, l.ConnState
	web.Start()
	s.Server = web
	t.Cleanup(web.Close)
	return s
}

// ended reports whether the server has closed c.
func ended(t *testing.T, c net.Conn) bool {
	t.Helper()
	// A request is answered, or not: whether the end of the connection has come already is left to chance.
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
	_, err := c.Read(make([]byte, 1))
	return err != nil
}

// accepted waits until the server has accepted every connection that was dialed before: it is asked over a new one, which
// is accepted behind them.
func (s *site) accepted(t *testing.T) {
	t.Helper()
	s.Client().CloseIdleConnections()
	if status, body := s.do(t, "GET", "/healthz"); status != 200 {
		t.Errorf("%d %v", status, body)
	}
}

// begin sends the beginning of a message, and returns what takes the rest. What is shorter than 4 KiB waits here for
// the next pong.
func (p *peer) begin(text string) (io.WriteCloser, error) {
	w, err := p.Writer(p.t.Context(), websocket.MessageText)
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	return w, err
}

// TestUnfinishedMessage: a client that leaves a message incomplete is cut, though it answers pings. One that is only
// slow is not.
func TestUnfinishedMessage(t *testing.T) {
	for _, test := range []struct {
		name   string
		pieces int // one a second, and then no end
		closed bool
	}{
		{"no more", 0, true},
		{"more and more", 100, true},
		{"slow", 8, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serveInMemory(t, func(c *signaling.Config) { c.PingInterval = time.Second })
				p, _ := s.join(t, "key-one-of-tests")
				start := time.Now()
				w, err := p.begin(`{"type":"heartbeat",` + strings.Repeat(" ", 5000))
				if err != nil {
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				wg.Go(func() {
					var err error
					for i := 0; i < test.pieces && err == nil; i++ {
						<-time.After(time.Second)
						_, err = io.WriteString(w, strings.Repeat(" ", 100))
					}
					if !test.closed {
						_, _ = io.WriteString(w, `"peer_id":"agent-001"}`)
						_ = w.Close()
						<-time.After(time.Minute)
						_ = p.Close(websocket.StatusNormalClosure, "done")
					}
				})
				code, reason := p.closed()
				defer wg.Wait()
				took := time.Since(start).Round(time.Second)
				if test.closed && (code != websocket.StatusPolicyViolation || took != signaling.DefaultIdleTimeout) {
					t.Errorf("closed with code %d (%s) after %v", code, reason, took)
				}
				if test.closed != strings.Contains(reason, "did not complete a message") || !test.closed && took < time.Minute {
					t.Errorf("closed with %q after %v", reason, took)
				}
			})
		})
	}
}

// TestUnfinishedMemory: long messages that are not complete have a bound together. Those of a usual length are received
// all the same, and when the others are gone a long one is, too.
func TestUnfinishedMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const clients = 300
		s := serveInMemory(t, func(c *signaling.Config) {
			c.Keys = map[string]signaling.Key{"key-one-of-tests": testKeys["key-one-of-tests"]}
			for i := range clients {
				c.Keys[fmt.Sprintf("key-of-many-%04d", i)] = signaling.Key{PeerID: fmt.Sprint("many-", i), Role: "agent"}
			}
		})
		honest, _ := s.join(t, "key-one-of-tests")
		refused := 0
		for i := range clients {
			c, _, err := s.dialToken(t, s.token(t, fmt.Sprintf("key-of-many-%04d", i)), nil)
			if err != nil {
				t.Fatal(err)
			}
			for memory := s.Listener.(*memoryListener); len(memory.dialed) > 0; {
				<-memory.dialed
			}
			p := &peer{t, fmt.Sprint("many-", i), c}
			t.Cleanup(func() { _ = c.CloseNow() })
			ended := make(chan string, 1)
			go func() {
				_, reason := p.closed()
				ended <- reason
			}()
			go func() { _, _ = p.begin(strings.Repeat(" ", 200_000)) }() // fails if it is refused
			synctest.Wait()
			select {
			case reason := <-ended:
				refused++
				if !strings.Contains(reason, "too many long messages") {
					t.Fatalf("client %d was refused with %q", i, reason)
				}
			default:
			}
		}
		// Each has a buffer of 256 KiB, of which 16 are free.
		if held, want := clients-refused, 256*256/(256-16); held != want {
			t.Errorf("%d clients could begin a long message, want %d", held, want)
		}
		for range 3 {
			honest.register()
		}
		<-time.After(signaling.DefaultIdleTimeout + 2*time.Second)
		honest.send(`{"type":"heartbeat","peer_id":"agent-001","payload":{"x":"` + strings.Repeat("x", 200_000) + `"}}`)
		honest.register()
	})
}
