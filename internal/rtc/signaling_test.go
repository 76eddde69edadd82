//go:build !js

package rtc_test

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// Losing signaling does not touch links; coming back connects to those that are missing, and only those.
func TestSignalingLoss(t *testing.T) {
	h, a, b := pair(t)
	h.leave("a")
	h.leave("b")
	c := start(t, h, "c").join()
	send(t, a.peer("b"), `{"type":"t"}`)
	testutil.Eventually(t, "a message without signaling", func() bool { return len(b.received("a")) == 1 })
	a.join()
	b.join()
	linked(t, a, b, c)
	if got := a.history(); got != "[+b +c]" {
		t.Errorf("history %s", got)
	}
	if n := h.count(signal.Offer, "b", "a") + h.count(signal.Offer, "a", "b"); n != 1 {
		t.Errorf("%d offers between live peers", n)
	}
}

// What signaling did not take while it was down is sent when it is back.
func TestSignalingLossWhileConnecting(t *testing.T) {
	t.Parallel()
	for _, lost := range []string{signal.Offer, signal.Answer, signal.Candidate} {
		t.Run(lost, func(t *testing.T) {
			t.Parallel()
			h := newHub(t)
			a, b := start(t, h, "a").join(), start(t, h, "b")
			var once sync.Once
			h.setFilter(func(m signal.Message) []signal.Message {
				out := []signal.Message{m}
				if m.Type == lost {
					once.Do(func() {
						h.leave(m.PeerID)
						out = nil // lost with the connection
					})
				}
				return out
			})
			b.join()
			var gone *agent
			testutil.Eventually(t, "the loss", func() bool {
				h.mu.Lock()
				defer h.mu.Unlock()
				for _, x := range []*agent{a, b} {
					if h.members[x.id] == nil {
						gone = x
					}
				}
				return gone != nil
			})
			gone.join()
			linked(t, a, b)
		})
	}
}

// Whatever signaling says, a link that works goes on working.
func TestHostileSignaling(t *testing.T) {
	h, a, b := pair(t)
	var recorded []signal.Message
	h.setFilter(func(m signal.Message) []signal.Message { recorded = append(recorded, m); return []signal.Message{m} })
	c := start(t, h, "c").join()
	linked(t, a, b, c)
	h.setFilter(nil)
	junk := []string{``, `null`, `7`, `{}`, `{"sdp":7}`, `{"sdp":"x","session":"y"}`, `{"candidate":"x"}`,
		`{"candidate":"x","session":"` + strings.Repeat("s", 500) + `"}`, `{"code":"peer_unavailable","target_id":"c"}`}
	for _, typ := range []string{signal.Offer, signal.Answer, signal.Candidate, signal.ErrorType, "gossip"} {
		for _, j := range junk {
			for _, from := range []string{"", "a", "d", strings.Repeat("x", 1000)} {
				a.Receive(signal.Message{Type: typ, PeerID: from, Payload: json.RawMessage(j)})
			}
		}
	}
	for range 3 { // replays
		for _, m := range recorded {
			if m.TargetID == "a" {
				a.Receive(m)
			}
		}
	}
	send(t, a.peer("b"), `{"type":"t"}`)
	send(t, a.peer("c"), `{"type":"t"}`)
	testutil.Eventually(t, "messages", func() bool { return len(b.received("a")) == 1 && len(c.received("a")) == 1 })
	if got := a.history(); got != "[+b +c]" {
		t.Errorf("history %s", got)
	}
}

// What signaling shows again of a peer's earlier links ends none that works, and neither do offers that nobody can read.
func TestOldOffers(t *testing.T) {
	h, a, b := pair(t)
	var mu sync.Mutex
	var recorded []signal.Message
	record := func(m signal.Message) []signal.Message {
		mu.Lock()
		defer mu.Unlock()
		recorded = append(recorded, m)
		return []signal.Message{m}
	}
	h.setFilter(record)
	for range 2 { // each of them once
		b.close(t)
		testutil.Eventually(t, "the end", func() bool { return a.peer("b") == nil })
		b = start(t, h, "b").join()
		linked(t, a, b)
		a.close(t)
		testutil.Eventually(t, "the end", func() bool { return b.peer("a") == nil })
		a = start(t, h, "a").join()
		linked(t, a, b)
	}
	h.setFilter(nil)
	for _, sdp := range []string{"", "x", "v=0\r\n"} {
		for _, from := range []string{"a", "b"} {
			for _, session := range []string{"", "forged"} {
				payload, _ := json.Marshal(signal.Description{SDP: sdp, Caps: []string{"jsonl", "restart"}, Session: session, Instance: session})
				recorded = append(recorded, signal.Message{Type: signal.Offer, PeerID: from, TargetID: map[string]string{"a": "b", "b": "a"}[from], Payload: payload})
			}
		}
	}
	before := b.history()
	for range 3 {
		for _, m := range recorded {
			h.deliver(m)
		}
	}
	for i := range 100 {
		send(t, a.peer("b"), message(i, 100))
		send(t, b.peer("a"), message(i, 100))
	}
	testutil.Eventually(t, "messages", func() bool { return len(b.received("a")) == 100 && len(a.received("b")) == 100 })
	if a.history() != "[+b]" || b.history() != before {
		t.Errorf("history %s and %s, was %s", a.history(), b.history(), before)
	}
}

// An offer that nobody can read ends no attempt at a link, either, and no wish for one.
func TestUnreadableOffers(t *testing.T) {
	h := newHub(t)
	garbage := func(from, to string) {
		for _, session := range []string{"", "forged"} {
			payload, _ := json.Marshal(signal.Description{SDP: "v=0\r\n", Caps: []string{"jsonl", "restart"}, Session: session, Instance: session})
			h.deliver(signal.Message{Type: signal.Offer, PeerID: from, TargetID: to, Payload: payload})
		}
	}
	h.setFilter(func(m signal.Message) []signal.Message {
		garbage(m.PeerID, m.TargetID)
		return []signal.Message{m}
	})
	a, b := start(t, h, "a").join(), start(t, h, "b")
	garbage("b", "a")
	b.join()
	linked(t, a, b)
	if a.history() != "[+b]" || b.history() != "[+a]" {
		t.Errorf("history %s and %s", a.history(), b.history())
	}
}

// FuzzReceive gives arbitrary payloads, and arbitrary SDP in good ones, to a node that is connecting. Its
// coverage is not deterministic: fuzz with -fuzzminimizetime=1x.
func FuzzReceive(f *testing.F) {
	sdp := "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=fingerprint:sha-256 00:11\r\na=group:BUNDLE 0\r\n" +
		"m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=setup:active\r\na=mid:0\r\n" +
		"a=sendrecv\r\na=sctp-port:5000\r\na=max-message-size:262144\r\na=ice-ufrag:abcdefgh\r\na=ice-pwd:abcdefghabcdefghabcdefgh\r\n"
	candidate := "candidate:1 1 udp 2130706431 127.0.0.1 50000 typ host"
	f.Add(signal.Offer, sdp, true)
	f.Add(signal.Answer, sdp, true)
	f.Add(signal.Offer, `{"sdp":"v=0","session":"s","caps":["jsonl"]}`, false)
	f.Add(signal.Candidate, candidate, true)
	f.Add(signal.Candidate, `{"candidate":"","sdpMid":null,"sdpMLineIndex":0}`, false)
	f.Add(signal.ErrorType, `{"code":"peer_unavailable","target_id":"b"}`, false)
	f.Fuzz(func(t *testing.T, typ, text string, wrap bool) {
		h := newHub(t)
		h.silent = true
		a := start(t, h, "a").join()
		a.Connect("b")
		payload := []byte(text)
		if wrap {
			var err error
			payload, err = json.Marshal(map[string]any{"sdp": text, "candidate": text, "session": "s"})
			if err != nil {
				t.Fatal(err) // strings can always be marshalled
			}
			offer, _ := json.Marshal(signal.Description{SDP: sdp, Session: "s"})
			a.Receive(signal.Message{Type: signal.Offer, PeerID: "c", Payload: offer})
		}
		a.Receive(signal.Message{Type: typ, PeerID: "b", Payload: payload})
		a.Receive(signal.Message{Type: typ, PeerID: "c", Payload: payload})
		a.close(t)
	})
}
