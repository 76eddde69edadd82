package signal_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

const patience = testutil.Patience

const apiKey = "ak_secret_0123456789"

// event is one call of a handler.
type event struct {
	kind   string // registered, receive, disconnected, status, ice
	self   string
	peers  []string
	base   []string
	msg    signal.Message
	status signal.Status
	ice    []signal.ICEServer
}

// recorder is a Handler that passes its calls to a test.
type recorder struct {
	events chan event
	busy   atomic.Bool
}

func newRecorder() *recorder { return &recorder{events: make(chan event, 10000)} }

func (r *recorder) record(e event) {
	if !r.busy.CompareAndSwap(false, true) {
		panic("two handler calls at once")
	}
	r.events <- e
	r.busy.Store(false)
}

func (r *recorder) Registered(self string, l signal.PeersPayload) {
	r.record(event{kind: "registered", self: self, peers: l.Peers, base: l.Base})
}
func (r *recorder) Receive(m signal.Message)          { r.record(event{kind: "receive", msg: m}) }
func (r *recorder) Disconnected()                     { r.record(event{kind: "disconnected"}) }
func (r *recorder) Status(s signal.Status)            { r.record(event{kind: "status", status: s}) }
func (r *recorder) ICEServers(ice []signal.ICEServer) { r.record(event{kind: "ice", ice: ice}) }
func (r *recorder) waitState(t *testing.T, s signal.State) signal.Status {
	t.Helper()
	return r.wait(t, string(s), func(e event) bool { return e.kind == "status" && e.status.State == s }).status
}

// waitFailure returns the first status with an error.
func (r *recorder) waitFailure(t *testing.T) signal.Status {
	t.Helper()
	return r.wait(t, "failure", func(e event) bool { return e.kind == "status" && e.status.Err != nil }).status
}

func (r *recorder) waitKind(t *testing.T, kind string) event {
	t.Helper()
	return r.wait(t, kind, func(e event) bool { return e.kind == kind })
}

// wait returns the first event that ok accepts.
func (r *recorder) wait(t *testing.T, what string, ok func(event) bool) event {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case e := <-r.events:
			if ok(e) {
				return e
			}
		case <-timeout:
			t.Fatalf("no %s within %v", what, patience)
		}
	}
}

// next returns the next event.
func (r *recorder) next(t *testing.T) event {
	t.Helper()
	return r.wait(t, "event", func(event) bool { return true })
}

// start runs c until the test ends, or the returned function is called.
func start(t *testing.T, c *signal.Client, h signal.Handler) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, h) }()
	var stopped atomic.Bool
	stop = func() {
		cancel()
		if stopped.Swap(true) {
			return
		}
		if err := <-done; err != context.Canceled {
			t.Errorf("Run returned %v, want %v", err, context.Canceled)
		}
	}
	t.Cleanup(stop)
	return stop
}

// fake is a signaling server that behaves like chatixia-mesh's registry where the test does not change it.
type fake struct {
	*httptest.Server
	token, config http.HandlerFunc
	ws            func(ctx context.Context, c *websocket.Conn)
	upgrade       http.HandlerFunc // instead of ws
	tokens        atomic.Int32
}

func newFake(t *testing.T) *fake {
	t.Helper()
	return newFakeTLS(t, nil)
}

// newFakeTLS is newFake with TLS, unless conf is nil.
func newFakeTLS(t *testing.T, conf *tls.Config) *fake {
	t.Helper()
	f := &fake{}
	f.token = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-API-Key") != apiKey {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = fmt.Fprintf(w, `{"token":"tok-%d","peer_id":"agent-002","role":"agent"}`, f.tokens.Add(1))
	}
	f.config = http.NotFound
	f.ws = f.talk
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/token", func(w http.ResponseWriter, r *http.Request) { f.token(w, r) })
	mux.HandleFunc("GET /api/config", func(w http.ResponseWriter, r *http.Request) { f.config(w, r) })
	mux.HandleFunc("GET /ws", func(w http.ResponseWriter, r *http.Request) {
		if f.upgrade != nil {
			f.upgrade(w, r)
			return
		}
		if !strings.HasPrefix(r.URL.Query().Get("token"), "tok-") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		f.ws(ctx, c)
	})
	f.Server = httptest.NewUnstartedServer(mux)
	f.Config.ErrorLog = log.New(io.Discard, "", 0)
	if f.TLS = conf; conf != nil {
		f.StartTLS()
	} else {
		f.Start()
	}
	t.Cleanup(f.Close)
	return f
}

// talk responds to the registration and then reads to the end.
func (f *fake) talk(ctx context.Context, c *websocket.Conn) {
	if register(ctx, c) == nil {
		readAll(ctx, c)
	}
}

// register responds to one registration with an empty peer_list.
func register(ctx context.Context, c *websocket.Conn) error {
	_, b, err := c.Read(ctx)
	if err != nil {
		return err
	}
	var m signal.Message
	if err := json.Unmarshal(b, &m); err != nil || m.Type != signal.Register {
		return fmt.Errorf("%q is not a registration", b)
	}
	return c.Write(ctx, websocket.MessageText, []byte(`{"type":"peer_list","peer_id":"registry","payload":{"peers":[]}}`))
}

func readAll(ctx context.Context, c *websocket.Conn) {
	for {
		if _, _, err := c.Read(ctx); err != nil {
			return
		}
	}
}

func (f *fake) client() *signal.Client {
	c := signal.New(f.clientConfig())
	signal.HurryUp(c)
	return c
}

func (f *fake) clientConfig() signal.Config {
	return signal.Config{Settings: signal.Settings{
		URL:      "ws" + strings.TrimPrefix(f.URL, "http") + "/ws",
		TokenURL: f.URL + "/api/token",
		APIKey:   apiKey,
	}}
}
