package signaling_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/signaling"
)

const (
	patience = testutil.Patience
	secret   = "a secret of more than thirty-two bytes"
)

var testKeys = map[string]signaling.Key{
	"key-one-of-tests":   {PeerID: "agent-001", Role: "agent"},
	"key-two-of-tests":   {PeerID: "agent-002", Role: "agent"},
	"key-three-of-tests": {PeerID: "agent-003", Role: "boss"},
}

// site is a running server.
type site struct {
	*httptest.Server
	sig *signaling.Server
	log *testutil.LogBuffer
}

func serve(t *testing.T, change func(*signaling.Config)) *site {
	t.Helper()
	return serveOn(t, nil, change)
}

// serveInMemory is serve without a network, so that it works in a synctest bubble. Nothing is buffered on the way.
func serveInMemory(t *testing.T, change func(*signaling.Config)) *site {
	t.Helper()
	return serveOn(t, &memoryListener{conns: make(chan net.Conn), dialed: make(chan net.Conn, 100), closed: make(chan struct{})}, change)
}

func serveOn(t *testing.T, memory *memoryListener, change func(*signaling.Config)) *site {
	t.Helper()
	log := &testutil.LogBuffer{}
	cfg := signaling.Config{Secret: secret, Keys: testKeys, Logger: zerolog.New(log)}
	if change != nil {
		change(&cfg)
	}
	sig, err := signaling.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{Server: httptest.NewUnstartedServer(sig), sig: sig, log: log}
	s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		// Otherwise the kernel takes megabytes for a client that reads nothing.
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetWriteBuffer(16 << 10)
		}
		return ctx
	}
	if memory != nil {
		_ = s.Listener.Close()
		s.Listener = memory
	}
	s.Start()
	if memory != nil {
		s.Client().Transport.(*http.Transport).DialContext = memory.dial
	}
	t.Cleanup(func() {
		if err := sig.Close(); err != nil {
			t.Error(err)
		}
		s.Server.Close()
		for _, private := range []string{secret, "key-one-of-tests", "key-two-of-tests", "eyJ"} {
			if strings.Contains(log.String(), private) {
				t.Errorf("the log tells the secret %q:\n%s", private, log)
			}
		}
	})
	return s
}

// do sends one request and returns the status and the JSON object of the response.
func (s *site) do(t *testing.T, method, path string, header ...string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var body map[string]any
	if err := json.Unmarshal(b, &body); err != nil {
		body = map[string]any{"text": string(b)}
	}
	return resp.StatusCode, body
}

func (s *site) token(t *testing.T, key string) string {
	t.Helper()
	status, body := s.do(t, "POST", "/api/token", "X-API-Key", key)
	token, _ := body["token"].(string)
	if status != http.StatusOK || token == "" {
		t.Fatalf("token exchange: %d %v", status, body)
	}
	return token
}

// peer is a connected client.
type peer struct {
	t  *testing.T
	id string
	*websocket.Conn
}

func (s *site) dialToken(t *testing.T, token string, header http.Header) (*websocket.Conn, int, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	u := s.URL + "/ws"
	if token != "" {
		u += "?token=" + token
	}
	c, resp, err := websocket.Dial(ctx, u, &websocket.DialOptions{HTTPClient: s.Client(), HTTPHeader: header})
	status := 0
	if resp != nil {
		status = resp.StatusCode
	}
	return c, status, err
}

// dial connects the peer of a key, without registering it.
func (s *site) dial(t *testing.T, key string) *peer {
	t.Helper()
	c, status, err := s.dialToken(t, s.token(t, key), nil)
	if err != nil {
		t.Fatalf("dial: %d %v", status, err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	p := &peer{t, testKeys[key].PeerID, c}
	// The handshake is over a moment before the server counts the peer as connected.
	p.send("are you there?")
	p.nextError()
	return p
}

// join connects and registers.
func (s *site) join(t *testing.T, key string) (p *peer, others []string) {
	t.Helper()
	p = s.dial(t, key)
	return p, p.register()
}

func (p *peer) send(text string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	if err := p.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) next() string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	_, b, err := p.Read(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

// register registers and returns the peer list. As the server responds in order, everything sent before has been
// handled then. It must be the only message that comes in.
func (p *peer) register() []string {
	p.t.Helper()
	p.send(`{"type":"register","peer_id":"` + p.id + `","payload":null}`)
	text := p.next()
	m, err := signal.ParseMessage([]byte(text))
	var list signal.PeersPayload
	if err != nil || m.Type != signal.PeerList || m.PeerID != "registry" || json.Unmarshal(m.Payload, &list) != nil || list.Peers == nil {
		p.t.Fatalf("answer to register: %s", text)
	}
	return list.Peers
}

// nextError returns the payload of the next message, which must be an error.
func (p *peer) nextError() signal.ErrorPayload {
	p.t.Helper()
	text := p.next()
	m, err := signal.ParseMessage([]byte(text))
	var e signal.ErrorPayload
	if err != nil || m.Type != signal.ErrorType || m.PeerID != "registry" || json.Unmarshal(m.Payload, &e) != nil {
		p.t.Fatalf("got %s, want an error", text)
	}
	return e
}

// closed reads until the connection is closed and returns the close code and reason.
func (p *peer) closed() (websocket.StatusCode, string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	for {
		if _, _, err := p.Read(ctx); err != nil {
			if ctx.Err() != nil {
				p.t.Fatal("the connection was not closed")
			}
			ce := websocket.CloseError{Code: -1, Reason: err.Error()}
			errors.As(err, &ce)
			return ce.Code, ce.Reason
		}
	}
}

// A memoryListener accepts what dial makes.
type memoryListener struct {
	conns  chan net.Conn
	dialed chan net.Conn // the other ends
	once   sync.Once
	closed chan struct{}
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *memoryListener) Addr() net.Addr { return memoryAddr{} }

func (l *memoryListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		l.dialed <- near
		return near, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "memory:80" }
