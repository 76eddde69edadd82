//go:build !js

package rtc_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// What an authorised but hostile peer may cause: see docs/threat-model.md.

// withCandidates adds candidates that lead nowhere to a description.
func withCandidates(d *signal.Description, n int) {
	var lines strings.Builder
	for i := range n {
		fmt.Fprintf(&lines, "a=candidate:%d 1 udp 2130706431 127.0.0.1 %d typ host\r\n", i, 20000+i)
	}
	d.SDP += lines.String()
}

// Candidates inside a description count like those that come later: in offers, answers and restarts.
func TestCandidatesInSDP(t *testing.T) {
	t.Parallel()
	const limit = 128 + 8 // and those that ICE finds by itself
	for _, answers := range []bool{false, true} {
		t.Run(fmt.Sprintf("answer %t", answers), func(t *testing.T) {
			h := newHub(t)
			a := start(t, h, "a")
			x := crafted(t, h, "s1", hello)
			extend := x.tamper
			x.tamper = func(d *signal.Description) {
				extend(d)
				withCandidates(d, 300)
			}
			if answers {
				x.join()
				a.join()
			} else {
				a.join()
				x.join()
			}
			testutil.Eventually(t, "the link", func() bool { return a.peer("x") != nil })
			for i := range 300 {
				init := webrtc.ICECandidateInit{Candidate: fmt.Sprintf("candidate:%d 1 udp 2130706431 127.0.0.1 %d typ host", i, 30000+i)}
				x.send(signal.Candidate, "a", signal.ICECandidate{Candidate: init.Candidate, SDPMid: ptr("0"), Session: "s1", Instance: "i1"})
			}
			if n := a.RemoteCandidates("x"); n > limit {
				t.Errorf("%d candidates were taken, the limit is %d", n, limit)
			}
			if answers {
				return
			}
			x.describeAgain(t, "a", func(d *signal.Description) { withCandidates(d, 300) })
			testutil.Eventually(t, "the answer to the restart", func() bool { return h.count(signal.Answer, "a", "x") > 1 })
			if n := a.RemoteCandidates("x"); n > limit {
				t.Errorf("%d candidates were taken in a restart, the limit is %d", n, limit)
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

// describeAgain sends an ICE restart by the session that has offered before.
func (b *basePeer) describeAgain(t *testing.T, peer string, edit func(*signal.Description)) {
	t.Helper()
	b.mu.Lock()
	pc := b.pcs[peer]
	b.mu.Unlock()
	d, err := pc.CreateOffer(&webrtc.OfferOptions{ICERestart: true})
	if err == nil {
		err = pc.SetLocalDescription(d)
	}
	if err != nil {
		t.Fatal(err)
	}
	desc := signal.Description{SDP: d.SDP}
	b.tamper(&desc)
	edit(&desc)
	b.send(signal.Offer, peer, desc)
}

// A later description with the fingerprint of another certificate ends a link that nobody has proven.
func TestFingerprintChanges(t *testing.T) {
	h := newHub(t)
	a := start(t, h, "a").join()
	x := crafted(t, h, "s1", hello)
	x.join()
	testutil.Eventually(t, "the link", func() bool { return a.peer("x") != nil })
	x.describeAgain(t, "a", func(d *signal.Description) {
		head, rest, _ := strings.Cut(d.SDP, "a=fingerprint:sha-256 ")
		d.SDP = head + "a=fingerprint:sha-256 " + strings.Repeat("AA:", 31) + "AA" + rest[95:]
	})
	testutil.Eventually(t, "the end", func() bool { return a.history() == "[+x -x]" })
	if r := get(a.recorder, func() error { return a.reasons[0] }); !errors.Is(r, rtc.ErrViolation) || !strings.Contains(r.Error(), "fingerprint") {
		t.Errorf("reason %v", r)
	}
}

// Descriptions and candidates over their size are dropped before anything is made of them.
func TestHugeSignaling(t *testing.T) {
	h := newHub(t)
	a := start(t, h, "a").join()
	long := strings.Repeat("x", 100_000)
	for typ, payload := range map[string]any{
		signal.Offer:     signal.Description{SDP: "v=0\r\na=" + long, Session: "s", Instance: "i"},
		signal.Answer:    signal.Description{SDP: "v=0\r\n", Session: "s", Answers: long},
		signal.Candidate: signal.ICECandidate{Candidate: "candidate:" + long},
	} {
		raw, _ := json.Marshal(payload)
		a.Receive(signal.Message{Type: typ, PeerID: "x", Payload: raw})
	}
	raw, _ := json.Marshal(signal.ICECandidate{SDPMid: &long})
	a.Receive(signal.Message{Type: signal.Candidate, PeerID: "x", Payload: raw})
	a.Receive(signal.Message{Type: signal.Candidate, PeerID: long, Payload: []byte(`{"candidate":""}`)})
	if a.Known("x") {
		t.Error("something of the peer is kept")
	}
}

// A signaling server that lists servers without end is believed up to a bound.
func TestManyICEServers(t *testing.T) {
	a := start(t, newHub(t), "a")
	var servers []signal.ICEServer
	for i := range 1000 {
		servers = append(servers, signal.ICEServer{URLs: []string{fmt.Sprintf("stun:127.0.0.1:%d", i+1), "stun:127.0.0.1:1"}})
	}
	a.ICEServers(servers)
	if n := a.ICEURLs(); n != 32 {
		t.Errorf("%d URLs are asked", n)
	}
}

// A peer that offers one session after another gets a few, and then one at a time, the last one.
func TestOfferFlood(t *testing.T) {
	h := newHub(t)
	start(t, h, "a", func(c *rtc.Config) { c.OfferPace(10 * time.Second) }).join()
	x := crafted(t, h, "s0", hello)
	for i := range 50 {
		x.tamper = func(d *signal.Description) {
			d.Caps, d.Session, d.Instance = []string{"jsonl", "restart"}, fmt.Sprintf("s%d", i), "i1"
		}
		x.join()
	}
	testutil.Eventually(t, "answers", func() bool { return h.count(signal.Answer, "a", "x") > 0 })
	if n := h.count(signal.Answer, "a", "x"); n > 4 {
		t.Errorf("%d of 50 offers were taken up at once", n)
	}
}

// A peer that opens data channels without end loses the link, and fills neither the log nor the mailbox.
func TestForeignChannels(t *testing.T) {
	for _, label := range []string{strings.Repeat("l", 400), "mesh"} {
		t.Run(label[:4], func(t *testing.T) { testForeignChannels(t, label) })
	}
}

func testForeignChannels(t *testing.T, label string) {
	h := newHub(t)
	var log testutil.LogBuffer
	a := start(t, h, "a", func(c *rtc.Config) { c.Log = zerolog.New(&log) }).join()
	x := crafted(t, h, "s1", hello)
	x.join()
	testutil.Eventually(t, "the link", func() bool { return a.peer("x") != nil })
	x.mu.Lock()
	pc := x.pcs["a"]
	x.mu.Unlock()
	for range 500 {
		if _, err := pc.CreateDataChannel(label, nil); err != nil {
			break // the link has ended
		}
	}
	testutil.Eventually(t, "the end of the link", func() bool { return a.history() == "[+x -x]" })
	if n := log.Count("\n"); n > 150 {
		t.Errorf("%d lines in the log", n)
	}
	if n := log.Count(label); len(label) > 300 && n > 0 {
		t.Errorf("%d lines with the whole label in the log", n)
	}
}
