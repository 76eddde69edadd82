package signaling_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/signaling"
)

func TestRegisterAndRelay(t *testing.T) {
	s := serve(t, nil)
	one, others := s.join(t, "key-one-of-tests")
	if len(others) != 0 {
		t.Fatalf("the first peer was told of %q", others)
	}
	connected := s.dial(t, "key-three-of-tests") // but not registered
	two, others := s.join(t, "key-two-of-tests")
	if !slices.Equal(others, []string{"agent-001"}) {
		t.Fatalf("the second peer was told of %q", others)
	}
	// The sender's bytes are relayed unchanged.
	offer := `{ "type":"offer", "more":[1,2], "target_id":"agent-001",` + "\r\n" + `"peer_id":"agent-002","payload":{"sdp":"ü\u00fc"}}`
	two.send(offer)
	if got := one.next(); got != offer {
		t.Fatalf("relayed %q, want %q", got, offer)
	}
	answer := `{"type":"answer","peer_id":"agent-001","target_id":"agent-003"}`
	one.send(answer)
	if got := connected.next(); got != answer {
		t.Fatalf("relayed %q, want %q", got, answer)
	}
	if others := connected.register(); !slices.Equal(others, []string{"agent-001", "agent-002"}) {
		t.Fatalf("the third peer was told of %q", others)
	}
	if err := one.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, "agent-001 forgotten", func() bool { return slices.Equal(two.register(), []string{"agent-003"}) })
}

// fixture is one line of the protocol's examples.
type fixture struct{ Name, From, To, Expect, Line string }

func fixtures(t testing.TB) (all []fixture) {
	t.Helper()
	f, err := os.Open("../docs/fixtures/signaling.jsonl")
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

// TestFixturesRead sends every example that a server may receive. The connection stays up after each.
func TestFixturesRead(t *testing.T) {
	s := serve(t, nil)
	one, _ := s.join(t, "key-one-of-tests")
	two, _ := s.join(t, "key-two-of-tests")
	for _, x := range fixtures(t) {
		if x.To != "server" {
			continue
		}
		t.Run(x.Name, func(t *testing.T) {
			from, to := one, two
			if strings.Contains(x.Line, `"peer_id":"agent-002"`) {
				from, to = two, one
			}
			from.send(x.Line)
			switch {
			case x.Expect == "error":
				if e := from.nextError(); e.Code == "" || e.Message == "" {
					t.Fatalf("error %+v", e)
				}
			case strings.Contains(x.Line, `"type":"register"`):
				if got := from.next(); !strings.Contains(got, `["agent-002"]`) {
					t.Fatalf("answer %s", got)
				}
			case strings.Contains(x.Line, `"target_id"`):
				if got := to.next(); got != x.Line {
					t.Fatalf("relayed %s, want %s", got, x.Line)
				}
			}
			from.register()
			to.register() // fails if anything was left unread
		})
	}
}

// TestFixturesWritten makes the server write its examples.
func TestFixturesWritten(t *testing.T) {
	s := serve(t, nil)
	_, _ = s.join(t, "key-two-of-tests")
	one := s.dial(t, "key-one-of-tests")
	for _, x := range fixtures(t) {
		from, provoke := one, ""
		switch x.Name {
		case "peer_list":
			provoke = `{"type":"register","peer_id":"agent-001"}`
		case "peer_list, to one that asked for left":
			provoke = `{"type":"register","peer_id":"agent-001","payload":{"left":true}}`
		case "id in use":
			from, provoke = s.dial(t, "key-one-of-tests"), `{"type":"register","peer_id":"agent-001","payload":{"if_free":true}}`
		case "unknown target":
			provoke = `{"type":"ice_candidate","peer_id":"agent-001","target_id":"agent-009"}`
		default:
			continue
		}
		t.Run(x.Name, func(t *testing.T) {
			from.send(provoke)
			var got, want any
			text := from.next()
			if err := json.Unmarshal([]byte(text), &got); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(x.Line), &want); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("wrote %s, want %s", text, x.Line)
			}
		})
	}
}

// TestBadMessages: each gets an error and is not relayed, and the connection stays.
func TestBadMessages(t *testing.T) {
	s := serve(t, nil)
	one, _ := s.join(t, "key-one-of-tests")
	two, _ := s.join(t, "key-two-of-tests")
	const rest = `"target_id":"agent-002","payload":{}}`
	for _, c := range []struct{ name, text, code string }{
		{"empty", ``, signal.CodeMalformed},
		{"not an object", `[]`, signal.CodeMalformed},
		{"not UTF-8", "{\"type\":\"offer\",\"peer_id\":\"agent-001\",\"x\":\"\xff\"," + rest, signal.CodeMalformed},
		{"no type", `{"peer_id":"agent-001",` + rest, signal.CodeMalformed},
		{"no sender", `{"type":"offer",` + rest, signal.CodeUnauthorized},
		{"forged sender", `{"type":"offer","peer_id":"agent-003",` + rest, signal.CodeUnauthorized},
		{"two senders", `{"type":"offer","peer_id":"agent-003","peer_id":"agent-001",` + rest, signal.CodeMalformed},
		{"forged registration", `{"type":"register","peer_id":"agent-003"}`, signal.CodeUnauthorized},
		{"no target", `{"type":"answer","peer_id":"agent-001"}`, signal.CodeInvalidField},
		{"itself as target", `{"type":"offer","peer_id":"agent-001","target_id":"agent-001"}`, signal.CodeInvalidField},
		{"unknown target", `{"type":"offer","peer_id":"agent-001","target_id":"registry"}`, signal.CodePeerUnavailable},
		{"list as payload of register", `{"type":"register","peer_id":"agent-001","payload":[]}`, signal.CodeInvalidField},
		{"text as start", `{"type":"register","peer_id":"agent-001","payload":{"started":"1"}}`, signal.CodeInvalidField},
		{"fraction as start", `{"type":"register","peer_id":"agent-001","payload":{"started":1.5}}`, signal.CodeInvalidField},
		{"negative start", `{"type":"register","peer_id":"agent-001","payload":{"started":-1}}`, signal.CodeInvalidField},
		{"number as if_free", `{"type":"register","peer_id":"agent-001","payload":{"if_free":1}}`, signal.CodeInvalidField},
	} {
		t.Run(c.name, func(t *testing.T) {
			one.send(c.text)
			if e := one.nextError(); e.Code != c.code {
				t.Fatalf("error %+v, want %s", e, c.code)
			}
			one.register()
			two.register()
		})
	}
	t.Run("binary", func(t *testing.T) {
		if err := one.Write(t.Context(), websocket.MessageBinary, []byte(`{"type":"register","peer_id":"agent-001"}`)); err != nil {
			t.Fatal(err)
		}
		if e := one.nextError(); e.Code != signal.CodeMalformed {
			t.Fatalf("error %+v", e)
		}
	})
	t.Run("unknown type", func(t *testing.T) {
		three, _ := s.join(t, "key-three-of-tests") // of which the log has not said much yet
		three.send(`{"type":"` + strings.Repeat("gossip", 50) + `","peer_id":"agent-003","target_id":"agent-002"}`)
		three.register()
		two.register()
		if log := s.log.String(); !strings.Contains(log, "unknown type") || strings.Contains(log, strings.Repeat("gossip", 50)) {
			t.Fatal("the log does not name the unknown type, shortened")
		}
	})
	if !strings.Contains(s.log.String(), "not the subject of the token") {
		t.Fatal("a forged sender is not in the log")
	}
}

func TestNewerConnectionReplaces(t *testing.T) {
	s := serve(t, nil)
	old, _ := s.join(t, "key-one-of-tests")
	two, _ := s.join(t, "key-two-of-tests")
	young, others := s.join(t, "key-one-of-tests")
	if !slices.Equal(others, []string{"agent-002"}) {
		t.Fatalf("told of %q", others)
	}
	if code, reason := old.closed(); code != signal.CloseReplaced || !strings.Contains(reason, "replaced") {
		t.Fatalf("closed with %d %q", code, reason)
	}
	offer := `{"type":"offer","peer_id":"agent-002","target_id":"agent-001"}`
	two.send(offer)
	if got := young.next(); got != offer {
		t.Fatalf("the newer connection got %s", got)
	}
}

// TestDeadConnectionIsReplaced: the old connection's client does not respond at all.
func TestDeadConnectionIsReplaced(t *testing.T) {
	s := serve(t, nil)
	_, _ = s.join(t, "key-one-of-tests") // and never read from
	_, _ = s.join(t, "key-one-of-tests")
	s.log.Wait(t, "peer disconnected")
}

func TestOversizedMessageEndsTheConnection(t *testing.T) {
	s := serve(t, func(c *signaling.Config) { c.MaxMessage = 1000 })
	one, _ := s.join(t, "key-one-of-tests")
	one.send(`{"type":"heartbeat","peer_id":"agent-001","x":"` + strings.Repeat("x", 900) + `"}`)
	one.register()
	one.send(strings.Repeat("x", 1001))
	if code, reason := one.closed(); code != websocket.StatusMessageTooBig {
		t.Fatalf("closed with %d %q", code, reason)
	}
}

// TestFlood: a flood from one peer costs its target neither the connection nor the messages of others.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveInMemory(t, nil)
		victim, _ := s.join(t, "key-one-of-tests")
		victim.SetReadLimit(1 << 20)
		flooder := s.dial(t, "key-two-of-tests")
		friend := s.dial(t, "key-three-of-tests")
		big := []byte(`{"type":"ice_candidate","peer_id":"agent-002","target_id":"agent-001","payload":"` + strings.Repeat("x", 250_000) + `"}`)
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer stop()
		wg.Go(func() {
			for ctx.Err() == nil {
				_ = flooder.Write(ctx, websocket.MessageText, big)
			}
		})
		for range 3 { // the victim reads nothing yet
			e := flooder.nextError()
			if e.Code != signal.CodeBusy || e.TargetID != "agent-001" || e.Message == "" {
				t.Fatalf("the flooder was told %+v, want %s", e, signal.CodeBusy)
			}
		}
		wg.Go(func() {
			for ctx.Err() == nil {
				_, _, _ = flooder.Read(ctx)
			}
		})
		offer := `{"type":"offer","peer_id":"agent-003","target_id":"agent-001"}`
		friend.send(offer)
		friend.register() // fails on an error that says the offer was not relayed
		for text := ""; text != offer; text = victim.next() {
		}
		victim.send(`{"type":"register","peer_id":"agent-001"}`)
		for text := ""; !strings.Contains(text, signal.PeerList); text = victim.next() {
		}
		log := s.log.String()
		if n := strings.Count(log, `"code":"busy"`); n < 1 || n > 20 {
			t.Errorf("%d lines about a busy target in the log, want some", n)
		}
		if strings.Contains(log, "peer disconnected") {
			t.Errorf("somebody was cut:\n%s", log)
		}
	})
}

// TestFlooderIsSlowed: after each refusal nothing is read for 10 ms.
func TestFlooderIsSlowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveInMemory(t, func(c *signaling.Config) { c.MaxQueue = 100_000 })
		_ = s.dial(t, "key-one-of-tests") // reads nothing
		flooder := s.dial(t, "key-two-of-tests")
		const head = `{"type":"offer","peer_id":"agent-002","target_id":"agent-001","payload":"`
		for range 40 { // more than the socket buffers and the queue hold
			flooder.send(head + strings.Repeat("x", 100_000) + `"}`)
		}
		handled := func() {
			flooder.send(`{"type":"register","peer_id":"agent-002"}`)
			for text := ""; !strings.Contains(text, signal.PeerList); text = flooder.next() {
			}
		}
		handled()
		start := time.Now()
		for range 30 {
			flooder.send(head + `"}`)
		}
		handled()
		if d := time.Since(start); d < 300*time.Millisecond {
			t.Fatalf("30 messages were refused within %v", d)
		}
	})
}

// TestClientThatTakesNothingIsCut: the queue is not full, but nothing is read for too long.
func TestClientThatTakesNothingIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveInMemory(t, func(c *signaling.Config) {
			c.IdleTimeout = 50 * time.Millisecond
			c.MaxQueue = 64 << 20
		})
		_ = s.dial(t, "key-one-of-tests")
		two, _ := s.join(t, "key-two-of-tests")
		big := `{"type":"offer","peer_id":"agent-002","target_id":"agent-001","payload":"` + strings.Repeat("x", 200_000) + `"}`
		for range 10 { // more than the socket buffers hold
			two.send(big)
		}
		s.log.Wait(t, "too slow: did not take a message in time")
	})
}

// TestSlowClientIsNotCut: a client may need longer than the timeout for a message, if it takes some of it.
func TestSlowClientIsNotCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveInMemory(t, func(c *signaling.Config) {
			c.IdleTimeout = 700 * time.Millisecond
			c.MaxMessage = 4 << 20
		})
		one := s.dial(t, "key-one-of-tests")
		one.SetReadLimit(4 << 20)
		two, _ := s.join(t, "key-two-of-tests")
		big := `{"type":"offer","peer_id":"agent-002","target_id":"agent-001","payload":"` + strings.Repeat("x", 3<<20) + `"}`
		two.send(big)
		_, r, err := one.Reader(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, piece := 0, make([]byte, 32<<10)
		for err == nil {
			var n int
			n, err = io.ReadFull(r, piece)
			got += n
			<-time.After(20 * time.Millisecond) // the pace of a slow link
		}
		if got != len(big) {
			t.Fatalf("got %d bytes of %d: %v; log: %s", got, len(big), err, s.log.String())
		}
	})
}

func TestDeadClientIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveInMemory(t, func(c *signaling.Config) {
			c.PingInterval = 10 * time.Millisecond
			c.IdleTimeout = 50 * time.Millisecond
		})
		_ = s.dial(t, "key-one-of-tests") // what it gets is read, but nothing answers
		memory := s.Listener.(*memoryListener)
		deaf := <-memory.dialed
		for len(memory.dialed) > 0 { // the first may have been for the token only
			deaf = <-memory.dialed
		}
		go func() { _, _ = io.Copy(io.Discard, deaf) }()
		alive, _ := s.join(t, "key-two-of-tests")
		go func() {
			for {
				if _, _, err := alive.Read(t.Context()); err != nil {
					return
				}
			}
		}()
		s.log.Wait(t, "no pong in time")
		if strings.Contains(s.log.String(), `"peer_id":"agent-002","error"`) {
			t.Fatal("the client that answers was cut too")
		}
	})
}

func TestMaxConnections(t *testing.T) {
	s := serve(t, func(c *signaling.Config) { c.MaxConnections = 2 })
	one, _ := s.join(t, "key-one-of-tests")
	_, _ = s.join(t, "key-two-of-tests")
	if _, status, err := s.dialToken(t, s.token(t, "key-three-of-tests"), nil); err == nil || status != http.StatusServiceUnavailable {
		t.Fatalf("a third connection: %d, %v, want 503", status, err)
	}
	again, _ := s.join(t, "key-one-of-tests") // a connected peer may come back
	_, _ = one.closed()
	_ = again.CloseNow()
	testutil.Eventually(t, "room", func() bool {
		c, _, err := s.dialToken(t, s.token(t, "key-three-of-tests"), nil)
		if err == nil {
			_ = c.CloseNow()
		}
		return err == nil
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveInMemory(t, nil)
		one, _ := s.join(t, "key-one-of-tests")
		_ = s.dial(t, "key-two-of-tests") // does not respond
		token := s.token(t, "key-three-of-tests")
		closed := make(chan error, 1)
		go func() { closed <- s.sig.Close() }()
		if code, reason := one.closed(); code != websocket.StatusGoingAway || !strings.Contains(reason, "shutting down") {
			t.Fatalf("closed with %d %q", code, reason)
		}
		select {
		case err := <-closed:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(4 * time.Second): // the library's own patience is 5 s, twice
			t.Fatal("Close hangs on a client that does not respond")
		}
		if _, status, err := s.dialToken(t, token, nil); err == nil || status != http.StatusServiceUnavailable {
			t.Fatalf("a connection after Close: %d, %v, want 503", status, err)
		}
		if err := s.sig.Close(); err != nil {
			t.Fatalf("second Close: %v", err)
		}
	})
}

// TestHalfARequest: a client that stops half-way through the upgrade request, which net/http still owns, does
// not block Close.
func TestHalfARequest(t *testing.T) {
	s := serve(t, nil)
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := fmt.Fprintf(c, "GET /ws?token=%s HTTP/1.1\r\nHost: x\r\n", s.token(t, "key-one-of-tests")); err != nil {
		t.Fatal(err)
	}
	if err := s.sig.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestNoWebSocketRequest(t *testing.T) {
	s := serve(t, func(c *signaling.Config) { c.MaxConnections = 1 })
	for range 3 { // each gives its place back
		if status, _ := s.do(t, "GET", "/ws?token="+s.token(t, "key-one-of-tests")); status != http.StatusUpgradeRequired {
			t.Fatalf("status %d, want 426", status)
		}
	}
}

func TestMountedUnderAPrefix(t *testing.T) {
	s := serve(t, nil)
	mux := http.NewServeMux()
	mux.Handle("/mesh/", http.StripPrefix("/mesh", s.sig))
	s.Config.Handler = mux
	for path, want := range map[string]int{"/mesh/healthz": 200, "/mesh/api/config": 200, "/healthz": 404, "/mesh/nothing": 404} {
		if status, _ := s.do(t, "GET", path); status != want {
			t.Errorf("GET %s: %d, want %d", path, status, want)
		}
	}
}

func TestHealthAndMethods(t *testing.T) {
	s := serve(t, nil)
	if status, body := s.do(t, "GET", "/healthz"); status != 200 || body["status"] != "ok" {
		t.Errorf("healthz: %d %v", status, body)
	}
	for _, r := range [][2]string{{"GET", "/api/token"}, {"POST", "/ws"}, {"POST", "/api/config"}, {"DELETE", "/healthz"}} {
		if status, _ := s.do(t, r[0], r[1]); status != http.StatusMethodNotAllowed {
			t.Errorf("%s %s: %d, want 405", r[0], r[1], status)
		}
	}
}
