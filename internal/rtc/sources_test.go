//go:build !js

package rtc_test

import (
	"encoding/json"
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/pion/stun/v4"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// checker makes the checks of a peer's ICE from wherever it likes: it has seen what signaling relays.
type checker struct {
	mu         sync.Mutex
	ufrag, pwd map[string]string
	address    map[string]string // one on the loopback, by peer
}

func newChecker(h *hub) *checker {
	c := &checker{ufrag: map[string]string{}, pwd: map[string]string{}, address: map[string]string{}}
	line := func(name, sdp string) string {
		if m := regexp.MustCompile(`a=` + name + `:(\S+)`).FindStringSubmatch(sdp); m != nil {
			return m[1]
		}
		return ""
	}
	h.setFilter(func(m signal.Message) []signal.Message {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch m.Type {
		case signal.Offer, signal.Answer:
			var d signal.Description
			_ = json.Unmarshal(m.Payload, &d)
			c.ufrag[m.PeerID], c.pwd[m.PeerID] = line("ice-ufrag", d.SDP), line("ice-pwd", d.SDP)
		case signal.Candidate:
			var candidate signal.ICECandidate
			_ = json.Unmarshal(m.Payload, &candidate)
			if f := strings.Fields(candidate.Candidate); len(f) > 5 && f[4] == "127.0.0.1" {
				c.address[m.PeerID] = net.JoinHostPort(f[4], f[5])
			}
		}
		return []signal.Message{m}
	})
	return c
}

// check returns a binding request to one peer, as another one makes it.
func (c *checker) check(t *testing.T, to, as string) (request []byte, address string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	m, err := stun.Build(stun.BindingRequest, stun.TransactionID, stun.NewUsername(c.ufrag[to]+":"+c.ufrag[as]),
		stun.RawAttribute{Type: stun.AttrPriority, Value: []byte{0x6e, 0, 0, 0xff}},
		stun.RawAttribute{Type: stun.AttrICEControlling, Value: []byte{0, 0, 0, 0, 0, 0, 0, 1}},
		stun.NewShortTermIntegrity(c.pwd[to]), stun.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw, c.address[to]
}

// A peer that checks from thousands of addresses does not get a candidate for each.
func TestManySources(t *testing.T) {
	for _, muxed := range []bool{false, true} {
		t.Run(fmt.Sprintf("mux %t", muxed), func(t *testing.T) {
			h := newHub(t)
			c := newChecker(h)
			a := start(t, h, "a", func(cfg *rtc.Config) {
				if muxed {
					cfg.UDPPort = rtc.AnyUDPPort
				}
			}).join()
			x := crafted(t, h, "s1", hello)
			x.join()
			testutil.Eventually(t, "the link", func() bool { return a.peer("x") != nil })
			for range 2000 {
				request, address := c.check(t, "a", "x")
				conn, err := net.Dial("udp4", address)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = conn.Write(request)
				_ = conn.Close()
			}
			testutil.Eventually(t, "candidates that nobody announced", func() bool { return a.RemoteCandidates("x") > 100 })
			send(t, a.peer("x"), `{"type":"t"}`)
			testutil.Eventually(t, "a message", func() bool { return strings.Contains(strings.Join(x.received(), ""), `{"type":"t"}`) })
			if n := a.RemoteCandidates("x"); n > 300 {
				t.Errorf("%d candidates", n)
			}
		})
	}
}
