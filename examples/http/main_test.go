package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/signaling"
)

// join starts an agent.
func join(ctx context.Context, t *testing.T, url, name string) *mesh.Mesh {
	t.Helper()
	m, err := mesh.New(ctx, mesh.Config{SignalingURL: url, APIKey: name, WaitSignaling: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func answer(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/socket" {
		w.Header().Set("Protocol", r.Proto)
		_, _ = io.Copy(w, r.Body)
		return
	}
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		kind, text, err := c.Read(r.Context())
		if err != nil || c.Write(r.Context(), kind, bytes.ToUpper(text)) != nil {
			return
		}
	}
}

func TestHTTP(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	server, err := signaling.New(signaling.Config{Dev: true})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	web := httptest.NewServer(server)
	defer web.Close()
	url := "ws" + strings.TrimPrefix(web.URL, "http") + "/ws"
	bob, alice := join(ctx, t, url, "bob"), join(ctx, t, url, "alice")

	serving, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() {
		if err := serve(serving, bob, http.HandlerFunc(answer)); err != nil {
			t.Error(err)
		}
	})
	defer work.Wait()
	defer stop()

	var empty bytes.Buffer
	testGet := func() error { return get(ctx, alice, "http://bob/", &empty) }
	for err := testGet(); err != nil; err = testGet() { // until bob listens
		if !errors.Is(err, mesh.ErrNoService) {
			t.Fatal(err)
		}
	}
	body := make([]byte, 300_000)
	_, _ = rand.Read(body)
	for version := 1; version <= 2; version++ {
		c := client(alice)
		if transport := c.Transport.(*http.Transport); version == 2 {
			transport.Protocols = new(http.Protocols)
			transport.Protocols.SetUnencryptedHTTP2(true)
		}
		var posts sync.WaitGroup
		for range 10 {
			posts.Go(func() {
				response, err := c.Post("http://bob/", "application/octet-stream", bytes.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				defer response.Body.Close()
				got, err := io.ReadAll(response.Body)
				if err != nil || !bytes.Equal(got, body) || !strings.HasPrefix(response.Header.Get("Protocol"), fmt.Sprint("HTTP/", version)) {
					t.Errorf("HTTP/%d: %d bytes by %s, %v", version, len(got), response.Header.Get("Protocol"), err)
				}
			})
		}
		posts.Wait()
		c.CloseIdleConnections()
	}

	c, _, err := websocket.Dial(ctx, "ws://bob/socket", &websocket.DialOptions{HTTPClient: client(alice)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if err := c.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, text, err := c.Read(ctx); string(text) != "HELLO" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if err := get(ctx, alice, "http://bob:8080/", &empty); !errors.Is(err, mesh.ErrNoService) {
		t.Errorf("a service that nobody has: %v", err)
	}
}
