package signal_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/chatixia-ai/mesh/internal/signal"
)

const welcome = `{"type":"welcome","peer_id":"registry","payload":{"token":"tok-9","peer_id":"agent-002","role":"agent",` +
	`"iceServers":[{"urls":"stun:example.org"}],"bearer":true}}`

// newDirect returns a fake that takes the key in the handshake, as our own server does. Each handshake's header goes into
// headers, each registration by a message into registers.
func newDirect(t *testing.T) (f *fake, headers chan http.Header, registers chan string) {
	t.Helper()
	f, headers, registers = newFake(t), make(chan http.Header, 10), make(chan string, 10)
	f.upgrade = func(w http.ResponseWriter, r *http.Request) {
		headers <- r.Header
		w.Header().Set("Mesh-Welcome", "1")
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		lines := []string{welcome}
		register := r.Header.Get("Mesh-Register")
		registered := register != "" && !strings.Contains(register, "somebody")
		list := `{"type":"peer_list","peer_id":"registry","payload":{"peers":["agent-001"]}}`
		if registered {
			lines = append(lines, list)
		}
		for _, l := range lines {
			if c.Write(ctx, websocket.MessageText, []byte(l)) != nil {
				return
			}
		}
		for {
			_, b, err := c.Read(ctx)
			if err != nil {
				return
			}
			if m, err := signal.ParseMessage(b); err == nil && m.Type == signal.Register {
				registers <- string(b)
				_ = c.Write(ctx, websocket.MessageText, []byte(list))
			}
		}
	}
	return f, headers, registers
}

// A server of ours takes the key in the handshake: no token exchange, no registration of its own, unless this client may
// only be a peer that the server cannot know of before.
func TestDirect(t *testing.T) {
	errOther := errors.New("not this one")
	for name, tt := range map[string]struct {
		own        func() (string, bool)
		check      error
		inHeader   string // of the registration
		byMessage  bool
		registered bool
	}{
		"any id":           {nil, nil, `{"started":5,"left":true}`, false, true},
		"this id":          {func() (string, bool) { return "agent-002", true }, nil, `{"started":5,"left":true,"peer_id":"agent-002"}`, false, true},
		"not known yet":    {func() (string, bool) { return "", false }, nil, "", true, true},
		"another accepted": {func() (string, bool) { return "somebody", true }, nil, `{"started":5,"left":true,"peer_id":"somebody"}`, true, true},
		"another refused":  {func() (string, bool) { return "somebody", true }, errOther, `{"started":5,"left":true,"peer_id":"somebody"}`, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			f, headers, registers := newDirect(t)
			cfg := f.clientConfig()
			cfg.Started, cfg.FetchICE, cfg.OwnID = time.UnixMilli(5), true, tt.own
			cfg.CheckID = func(string) error { return tt.check }
			c, r := signal.New(cfg), newRecorder()
			stop := start(t, c, r)
			h := <-headers
			if h.Get("X-API-Key") != apiKey || h.Get("Mesh-Register") != tt.inHeader {
				t.Errorf("key %q and registration %q", h.Get("X-API-Key"), h.Get("Mesh-Register"))
			}
			if !tt.registered {
				if s := r.waitFailure(t); !s.Permanent || !errors.Is(s.Err, errOther) {
					t.Errorf("status %+v", s)
				}
				stop()
				if len(registers) != 0 {
					t.Error("registered all the same")
				}
				return
			}
			if e := r.waitKind(t, "ice"); len(e.ice) != 1 {
				t.Errorf("ICE servers %v", e.ice)
			}
			if e := r.waitKind(t, "registered"); e.self != "agent-002" || len(e.peers) != 1 {
				t.Errorf("registered %+v", e)
			}
			stop()
			if got := len(registers); (got == 1) != tt.byMessage {
				t.Errorf("%d registrations by message", got)
			}
			if n := f.tokens.Load(); n != 0 {
				t.Errorf("%d tokens exchanged", n)
			}
		})
	}
}

// Any other server is asked for a token, as ever, and not offered the key again.
func TestIndirect(t *testing.T) {
	for name, welcomes := range map[string]func(context.Context, *websocket.Conn) error{
		"refuses the handshake": nil,
		"announces no welcome":  func(ctx context.Context, c *websocket.Conn) error { <-ctx.Done(); return nil },
		"another first message": func(ctx context.Context, c *websocket.Conn) error {
			return c.Write(ctx, websocket.MessageText, []byte(`{"type":"peer_list","peer_id":"registry","payload":{"peers":[]}}`))
		},
		"none": func(ctx context.Context, c *websocket.Conn) error { <-ctx.Done(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			var keys atomic.Int32
			kill := make(chan struct{})
			f.ws = func(ctx context.Context, c *websocket.Conn) {
				if register(ctx, c) == nil {
					<-kill
				}
			}
			inner := f.Config.Handler
			f.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/ws" && r.Header.Get("X-API-Key") != "" {
					keys.Add(1)
					if name != "announces no welcome" {
						w.Header().Set("Mesh-Welcome", "1")
					}
					if welcomes != nil {
						if c, err := websocket.Accept(w, r, nil); err == nil {
							_ = welcomes(c.CloseRead(context.Background()), c)
							_ = c.CloseNow()
						}
						return
					}
				}
				inner.ServeHTTP(w, r)
			})
			c, r := f.client(), newRecorder()
			if name == "none" {
				signal.SetTiming(c, "request", 200*time.Millisecond)
			}
			stop := start(t, c, r)
			for range 2 {
				r.waitKind(t, "registered")
				kill <- struct{}{}
			}
			stop()
			if n := f.tokens.Load(); n < 2 || keys.Load() != 1 {
				t.Errorf("%d tokens, and the key in %d handshakes", n, keys.Load())
			}
		})
	}
}

// An instance that was replaced before it was welcome does not come back.
func TestDirectReplaced(t *testing.T) {
	f := newFake(t)
	f.upgrade = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Mesh-Welcome", "1")
		if c, err := websocket.Accept(w, r, nil); err == nil {
			_ = c.Close(signal.CloseReplaced, "a later one")
		}
	}
	if err := f.client().Run(t.Context(), newRecorder()); !errors.Is(err, signal.ErrReplaced) {
		t.Errorf("Run returned %v", err)
	}
}
