//go:build unix

package signal_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// withToken serves WebSockets of clients that have a token, as a server does that takes no key in the handshake.
func withToken(serve func(*http.Request, *websocket.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-API-Key") != "" {
			http.Error(w, "a token is required", http.StatusUnauthorized)
			return
		}
		if c, err := websocket.Accept(w, r, nil); err == nil {
			serve(r, c)
		}
	}
}

// A probe finds out soon that the server does not respond. What the client leaves behind is reset: an end of file
// could reach the server when the client is long back.
func TestProbeFindsDeadServer(t *testing.T) {
	f := newFake(t)
	var first atomic.Bool
	ended := make(chan error, 1)
	f.upgrade = withToken(func(r *http.Request, c *websocket.Conn) {
		_ = register(r.Context(), c)
		if !first.CompareAndSwap(false, true) {
			readAll(context.Background(), c)
			return
		}
		time.Sleep(300 * time.Millisecond) // in which it reads nothing and sends no pong
		var err error
		for err == nil {
			_, _, err = c.Read(context.Background())
		}
		ended <- err
	})
	client := f.client()
	signal.SetTiming(client, "probe", 100*time.Millisecond)
	r := newRecorder()
	start(t, client, r)
	r.waitKind(t, "registered")
	client.Probe(func() { t.Error("alive") })
	if s := r.waitFailure(t); !strings.Contains(s.Err.Error(), "no pong within 100ms") {
		t.Errorf("error %v", s.Err)
	}
	r.waitKind(t, "registered")
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server saw %v, want a reset", err)
	}
	alive := make(chan struct{})
	client.Probe(func() { close(alive) })
	select {
	case <-alive:
	case <-time.After(patience):
		t.Error("no response to the probe")
	}
}

// A probe shortens the wait for the next try, but not after a response of the server.
func TestProbeHurries(t *testing.T) {
	for _, responds := range []bool{false, true} {
		f := newFake(t)
		var down atomic.Bool
		down.Store(true)
		handler := f.Config.Handler
		var tries atomic.Int32
		f.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case !down.Load():
				handler.ServeHTTP(w, r)
			case responds:
				tries.Add(1)
				w.WriteHeader(http.StatusServiceUnavailable)
			default:
				tries.Add(1)
				panic(http.ErrAbortHandler) // the connection is lost
			}
		})
		client := f.client()
		signal.SetRetry(client, time.Hour)
		signal.SetTiming(client, "probe", 50*time.Millisecond)
		r := newRecorder()
		stop := start(t, client, r)
		r.waitFailure(t)
		down.Store(false)
		client.Probe(nil)
		if !responds {
			r.waitKind(t, "registered")
		} else {
			time.Sleep(200 * time.Millisecond)
			if n := f.tokens.Load(); n != 0 {
				t.Errorf("tries again after %d ms, though the server has responded", 200)
			}
		}
		stop()
	}
}

// A connect that the network swallows is given up after a probe, to begin again.
func TestProbeEndsConnect(t *testing.T) {
	f := newFake(t)
	hole := blackHole(t)
	cfg := f.clientConfig()
	cfg.TokenURL = "http://" + hole + "/api/token"
	client := signal.New(cfg)
	signal.HurryUp(client)
	signal.SetTiming(client, "probe", 50*time.Millisecond)
	signal.SetTiming(client, "request", time.Hour)
	r := newRecorder()
	start(t, client, r)
	client.Probe(nil)
	if s := r.waitFailure(t); !strings.Contains(s.Err.Error(), "no connection in time") {
		t.Errorf("error %v", s.Err)
	}
}

// blackHole returns an address of this host at which no connect succeeds or fails: that of a listener whose backlog is
// full.
func blackHole(t *testing.T) (addr string) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	to := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*syscall.SockaddrInet4).Port}
	for { // until one does not fit
		c, err := net.DialTimeout("tcp", to.String(), 20*time.Millisecond)
		if err != nil {
			return to.String()
		}
		t.Cleanup(func() { _ = c.Close() })
	}
}

// A server that has a lot to say responds by that: its pong lies behind its messages.
func TestProbeOfBusyServer(t *testing.T) {
	f := newFake(t)
	var conns atomic.Int32
	f.upgrade = withToken(func(r *http.Request, c *websocket.Conn) {
		conns.Add(1)
		_ = register(r.Context(), c)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for err := error(nil); err == nil; <-tick.C { // it reads nothing, and sends no pong
			err = c.Write(context.Background(), websocket.MessageText, []byte(`{"type":"heartbeat","payload":{}}`))
		}
	})
	client := f.client()
	signal.SetTiming(client, "probe", 100*time.Millisecond)
	r := newRecorder()
	start(t, client, r)
	r.waitKind(t, "registered")
	alive := make(chan struct{})
	client.Probe(func() { close(alive) })
	select {
	case <-alive:
	case <-time.After(patience):
		t.Error("no response to the probe")
	}
	if conns.Load() != 1 {
		t.Errorf("%d connections", conns.Load())
	}
}
