//go:build !js

package rtc_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

func TestBadConfig(t *testing.T) {
	for name, cfg := range map[string]rtc.Config{
		"stun:":    {ICEServers: []signal.ICEServer{{URLs: []string{"http://example.org"}}}},
		"password": {ICEServers: []signal.ICEServer{{URLs: []string{"turn:127.0.0.1"}}}},
	} {
		if n, err := rtc.New(cfg, nil, nil); err == nil {
			n.Close(context.Background())
			t.Errorf("%s: no error", name)
		}
	}
}

// With a UDP port, all candidates have it, and no other node can.
func TestUDPPort(t *testing.T) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	port := c.LocalAddr().(*net.UDPAddr).Port
	c.Close()
	h := newHub(t)
	var mu sync.Mutex
	var wrong []string
	candidates := 0
	h.setFilter(func(m signal.Message) []signal.Message {
		mu.Lock()
		defer mu.Unlock()
		if m.Type == signal.Candidate && m.PeerID == "a" {
			candidates++
			if !strings.Contains(string(m.Payload), fmt.Sprintf(" %d typ host", port)) {
				wrong = append(wrong, string(m.Payload))
			}
		}
		return []signal.Message{m}
	})
	a := start(t, h, "a", func(c *rtc.Config) { c.UDPPort = port }).join()
	linked(t, a, start(t, h, "b").join(), start(t, h, "c").join())
	mu.Lock()
	defer mu.Unlock()
	if candidates == 0 || len(wrong) > 0 {
		t.Errorf("%d candidates, wrong: %q", candidates, wrong)
	}
	cfg := rtc.Config{Settings: rtc.Settings{UDPPort: port}}
	cfg.OnlyLoopback()
	if n, err := rtc.New(cfg, nil, nil); err == nil {
		n.Close(context.Background())
		t.Error("no error for a port in use")
	}
}

// RelayOnly reveals no address of this host.
func TestRelayOnly(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	a := start(t, h, "a", func(c *rtc.Config) { c.RelayOnly = true; c.ConnectTimeout = time.Second })
	start(t, h, "b").join()
	a.join()
	a.Connect("b")
	testutil.Eventually(t, "ConnectFailed", func() bool { return get(a.recorder, func() *wire.Error { return a.failed["b"] }) != nil })
	if n := h.count(signal.Candidate, "a", "b"); n != 0 {
		t.Errorf("%d candidates", n)
	}
	if n := h.count(signal.Offer, "a", "b"); n == 0 {
		t.Error("no offer")
	}
}
