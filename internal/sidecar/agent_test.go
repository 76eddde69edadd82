package sidecar

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/chatixia-ai/mesh/internal/link"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/signaling"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// alone returns the settings of a sidecar whose signaling server is down.
func alone(token string) Settings {
	return Settings{Signaling: signal.Settings{URL: "ws://127.0.0.1:1/ws", TokenURL: "http://127.0.0.1:1/api/token", APIKey: "k"}, Token: token}
}

// newServer starts a signaling server and returns its URL.
func newServer(t *testing.T) string {
	t.Helper()
	server, err := signaling.New(signaling.Config{Dev: true})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(server)
	t.Cleanup(func() {
		_ = server.Close()
		web.Close()
	})
	return web.URL
}

// settingsFor returns the settings of a sidecar that uses a signaling server.
func settingsFor(url, key string) Settings {
	return Settings{Signaling: signal.Settings{URL: "ws" + strings.TrimPrefix(url, "http") + "/ws", TokenURL: url + "/api/token", APIKey: key}}
}

// newSignaling returns settings of sidecars that meet, for any API key.
func newSignaling(t *testing.T) func(key string) Settings {
	t.Helper()
	url := newServer(t)
	return func(key string) Settings { return settingsFor(url, key) }
}

// An agent speaks to a sidecar line by line, as one in another language does.
type agent struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
	log  *testutil.LogBuffer
	done chan error // what Serve returned
}

// newAgent starts a sidecar for an agent.
func newAgent(t *testing.T, set Settings) *agent {
	t.Helper()
	near, far := net.Pipe()
	a := onConn(t, near)
	a.log = &testutil.LogBuffer{}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.done <- Serve(ctx, link.New(far, nil, set.Limits), &Door{}, set, zerolog.New(a.log))
	}()
	t.Cleanup(func() { near.Close(); cancel(); <-ended })
	return a
}

// onConn returns an agent on a connection to a sidecar.
func onConn(t *testing.T, conn net.Conn) *agent {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(testutil.Patience)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &agent{t: t, conn: conn, r: bufio.NewReader(conn), done: make(chan error, 1)}
}

// ended returns what Serve returned.
func (a *agent) ended() error {
	a.t.Helper()
	return testutil.Take(a.t, "the end of the sidecar, whose agent is gone", a.done)
}

func (a *agent) say(line string) {
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
func (a *agent) hear() event {
	a.t.Helper()
	for {
		if e := a.next(); e.Type != "signaling" {
			return e
		}
	}
}

// next returns the next event.
func (a *agent) next() (e event) {
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

// expect returns the next event that does not concern signaling, which must be of a type.
func (a *agent) expect(typ string) event {
	a.t.Helper()
	e := a.hear()
	if e.Type != typ {
		a.t.Fatalf("got %.300v, want %s", e, typ)
	}
	return e
}

const hello = `{"type":"hello","payload":{"protocol":1,"features":["error","flow","cancel","drain"],"max_message":16777216}}`

// greeted says hello.
func (a *agent) greeted() *agent {
	a.t.Helper()
	a.say(hello)
	a.expect("ready")
	return a
}

// send gives a message to a peer.
func (a *agent) send(peer, message string) {
	a.t.Helper()
	a.say(`{"type":"send","payload":{"target_peer":"` + peer + `","message":` + message + `}}`)
}
