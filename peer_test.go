package mesh

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// A rawAgent speaks to a sidecar line by line, as an agent in another language
// does.
type rawAgent struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
	log  *logBuffer
	done chan error // what serveSidecar returned
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

// newRawAgent starts a sidecar without a signaling server.
func newRawAgent(t *testing.T, token string) *rawAgent {
	t.Helper()
	return startRawAgent(t, settings{
		SignalingURL: "ws://127.0.0.1:1/ws", TokenURL: "http://127.0.0.1:1/api/token", APIKey: "k", Token: token,
	})
}

func startRawAgent(t *testing.T, set settings) *rawAgent {
	t.Helper()
	agent, side := net.Pipe()
	a := &rawAgent{t: t, conn: agent, r: bufio.NewReader(agent), log: &logBuffer{}, done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.done <- serveSidecar(ctx, newLink(side, set.limits()), set, zerolog.New(a.log))
	}()
	t.Cleanup(func() { agent.Close(); cancel(); <-ended })
	if err := agent.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *rawAgent) say(line string) {
	a.t.Helper()
	if _, err := io.WriteString(a.conn, line+"\n"); err != nil {
		a.t.Fatal(err)
	}
}

type event struct {
	Type    string
	Payload map[string]any
}

// hear returns the next event that does not concern signaling.
func (a *rawAgent) hear() event {
	a.t.Helper()
	for {
		if e := a.next(); e.Type != "signaling" {
			return e
		}
	}
}

// next returns the next event.
func (a *rawAgent) next() (e event) {
	a.t.Helper()
	line, err := a.r.ReadString('\n')
	if err != nil {
		a.t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		a.t.Fatalf("%q: %v", line, err)
	}
	return e
}

const hello = `{"type":"hello","payload":{"protocol":1,"features":["error","flow","cancel","drain"],"max_message":16777216}}`

// badCommands are the fixtures that a sidecar has to reject.
func badCommands(t *testing.T) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("docs", "fixtures", "link.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	bad := make(map[string]string)
	for l := range bytes.Lines(raw) {
		var c struct{ Name, To, Line, Expect string }
		if err := json.Unmarshal(l, &c); err != nil {
			t.Fatal(err)
		}
		if c.Expect == "error" && c.To == "sidecar" {
			bad[c.Name] = c.Line
		}
	}
	if len(bad) < 15 {
		t.Fatalf("only %d bad commands among the fixtures", len(bad))
	}
	bad["over the limit"] = `{"type":"send","payload":{"target_peer":"` + strings.Repeat("x", wire.DefaultMaxMessage+wire.EnvelopeSize) + `"}}`
	bad["not UTF-8"] = "{\"type\":\"send\",\"payload\":{\"target_peer\":\"\xff\",\"message\":{\"type\":\"x\"}}}"
	bad["nobody there"] = `{"type":"send","payload":{"target_peer":"p","message":{"type":"x"}}}`
	return bad
}

// Every bad line is answered with one error, and the link goes on.
func TestBadCommandsExtended(t *testing.T) {
	a := newRawAgent(t, "")
	a.say(hello)
	if e := a.hear(); e.Type != "ready" {
		t.Fatalf("got %+v", e)
	}
	for name, line := range badCommands(t) {
		a.say(line)
		a.say(`{"type":"list_peers"}`)
		if e := a.hear(); e.Type != "error" || e.Payload["code"] == "" || e.Payload["message"] == "" {
			t.Errorf("%s: got %+v", name, e)
		}
		if e := a.hear(); e.Type != "peer_list" {
			t.Errorf("%s: then got %+v", name, e)
		}
	}
}

// A base-only agent hears nothing of its mistakes; the log does.
func TestBadCommandsBaseOnly(t *testing.T) {
	a := newRawAgent(t, "")
	bad := badCommands(t)
	for _, line := range bad {
		a.say(line)
	}
	a.say(`{"type":"list_peers"}`)
	if e := a.hear(); e.Type != "peer_list" {
		t.Errorf("got %+v", e)
	}
	if n := a.log.count(`"level":"warn"`); n < len(bad) {
		t.Errorf("%d warnings for %d bad lines", n, len(bad))
	}
}

// What can be read of a bad line says which request it was.
func TestErrorNamesTheRequest(t *testing.T) {
	a := newRawAgent(t, "")
	a.say(hello)
	a.hear()
	a.say(`{"type":"send","payload":{"target_peer":"p","message":{"type":"x","request_id":"r1"}}}`)
	e := a.hear()
	if e.Payload["code"] != "peer_not_connected" || e.Payload["command"] != "send" || e.Payload["target_peer"] != "p" || e.Payload["request_id"] != "r1" {
		t.Errorf("got %+v", e)
	}
	a.say(`{"type":"cancel","payload":{"request_id":"r2"}}`)
	if e := a.hear(); e.Payload["code"] != "invalid_field" || e.Payload["command"] != "cancel" || e.Payload["request_id"] != "r2" {
		t.Errorf("got %+v", e)
	}
	a.say(`{"type":"send","payload":{"target_peer":"` + strings.Repeat("p", 2*maxEcho) + `"}}`)
	if e := a.hear(); e.Payload["code"] != "invalid_field" || e.Payload["target_peer"] != nil {
		t.Errorf("got %.300v", e)
	}
}

// drain is answered, also with nothing to drain; EOF ends the sidecar.
func TestDrainAndEnd(t *testing.T) {
	a := newRawAgent(t, "")
	a.say(hello)
	a.hear()
	a.say(`{"type":"drain"}`)
	if e := a.hear(); e.Type != "drained" {
		t.Errorf("got %+v", e)
	}
	a.conn.Close()
	select {
	case err := <-a.done:
		if err != nil {
			t.Errorf("serveSidecar: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the sidecar outlives its agent")
	}
}

// Without the token there is no service, whatever the first line is.
func TestToken(t *testing.T) {
	for name, line := range map[string]string{
		"no hello":    `{"type":"list_peers"}`,
		"no token":    hello,
		"wrong token": strings.Replace(hello, `"protocol"`, `"token":"guess","protocol"`, 1),
		"not JSON":    "hello",
	} {
		t.Run(name, func(t *testing.T) {
			a := newRawAgent(t, "secret")
			a.say(line)
			rest, _ := io.ReadAll(a.r)
			if told := bytes.Contains(rest, []byte("unauthorized")); told != strings.Contains(line, "hello\",") {
				t.Errorf("it was told %q", rest)
			}
			select {
			case err := <-a.done:
				if !errors.Is(err, errUnauthorized) {
					t.Errorf("serveSidecar: %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("still served")
			}
		})
	}
	a := newRawAgent(t, "secret")
	a.say(strings.Replace(hello, `"protocol"`, `"token":"secret","protocol"`, 1))
	if e := a.hear(); e.Type != "ready" {
		t.Errorf("with the token: %+v", e)
	}
}
