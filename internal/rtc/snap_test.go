//go:build !js

package rtc_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// tampering returns a filter that changes the payloads of offers and answers.
func tampering(t *testing.T, change func(typ string, d *signal.Description)) func(signal.Message) []signal.Message {
	return func(m signal.Message) []signal.Message {
		if m.Type == signal.Offer || m.Type == signal.Answer {
			var d signal.Description
			if err := json.Unmarshal(m.Payload, &d); err != nil {
				t.Error(err)
			}
			change(m.Type, &d)
			m.Payload, _ = json.Marshal(d)
		}
		return []signal.Message{m}
	}
}

// withInit returns an SDP with an SCTP INIT of its own in it.
func withInit(sdp string) string {
	return strings.Replace(sdp, "a=sctp-port:", "a=sctp-init:AQAAFAAAAAEAQAAA//////8AAAAB\r\na=sctp-port:", 1)
}

// Two peers that know how do without SCTP's handshake. The INITs never stand in an SDP, which other stacks would read, or
// send back. Peers of the last version, and base peers, link as before, whatever is in their SDP.
func TestSNAP(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change    func(d *signal.Description)
		handshake bool
	}{
		"both know how":          {func(*signal.Description) {}, false},
		"and have one in theirs": {func(d *signal.Description) { d.SDP = withInit(d.SDP) }, false},
		"the last version":       {func(d *signal.Description) { d.SCTPInit = "" }, true},
		"with one in its SDP":    {func(d *signal.Description) { d.SCTPInit, d.SDP = "", withInit(d.SDP) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out testutil.LogBuffer
			logged := func(c *rtc.Config) {
				c.LogWebRTC = true
				c.Log = zerolog.New(&out).Level(zerolog.TraceLevel)
			}
			h := newHub(t)
			h.setFilter(tampering(t, func(typ string, d *signal.Description) {
				if strings.Contains(d.SDP, "sctp-init") {
					t.Errorf("%s with an SCTP INIT in its SDP", typ)
				}
				tt.change(d)
			}))
			a, b := start(t, h, "a", logged).join(), start(t, h, "b", logged).join()
			linked(t, a, b)
			send(t, a.peer("b"), message(0, 128<<10))
			send(t, b.peer("a"), message(0, 128<<10))
			testutil.Eventually(t, "both messages", func() bool { return len(b.received("a")) == 1 && len(a.received("b")) == 1 })
			if got := strings.Contains(out.String(), "sending INIT"); got != tt.handshake {
				t.Errorf("handshake of SCTP: %t", got)
			}
			if strings.Contains(out.String(), "not using ForwardTSN") {
				t.Error("SCTP without its extensions")
			}
		})
	}
}

// Signaling can spoil an attempt by what it does to the INITs, as it can by anything else, but neither a later attempt
// nor the process.
func TestSNAPTampered(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(typ string, d *signal.Description){
		"taken out of the answer": func(typ string, d *signal.Description) {
			if typ == signal.Answer {
				d.SCTPInit = ""
			}
		},
		"put into the answer": func(typ string, d *signal.Description) {
			if typ == signal.Offer {
				d.SCTPInit = ""
			} else {
				d.SCTPInit = "AQAAFAAAAAEAQAAA//////8AAAAB"
			}
		},
		"another":   func(_ string, d *signal.Description) { d.SCTPInit = "AQAAFAAAAAEAQAAA//////8AAAAB" },
		"no INIT":   func(_ string, d *signal.Description) { d.SCTPInit = "AAAA" },
		"empty":     func(_ string, d *signal.Description) { d.SCTPInit = "====" },
		"no base64": func(_ string, d *signal.Description) { d.SCTPInit = "AQAAF\r\na=fingerprint:x" },
		"long":      func(_ string, d *signal.Description) { d.SCTPInit = strings.Repeat("A", 4096) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t)
			h.setFilter(tampering(t, change))
			quick := func(c *rtc.Config) { c.ConnectTimeout = 3 * time.Second }
			a, b := start(t, h, "a", quick).join(), start(t, h, "b", quick)
			var failed bool
			b.onFailed = func() { failed = true }
			b.join()
			b.Connect("a")
			testutil.Eventually(t, "the end of the attempt, or a link", func() bool {
				return get(b.recorder, func() bool { return failed || b.live["a"] != nil })
			})
			t.Logf("a link all the same: %t", b.peer("a") != nil)
			h.setFilter(nil)
			b.Connect("a")
			linked(t, a, b)
			send(t, b.peer("a"), message(0, 100))
			testutil.Eventually(t, "a message", func() bool { return len(a.received("b")) == 1 })
		})
	}
}

// A base peer that sends each line of our offer back, as libdatachannel does, or whose own stack writes an INIT into its
// descriptions, links as any other does.
func TestBasePeerWithInit(t *testing.T) {
	t.Parallel()
	for name, offers := range map[string]bool{"offers": true, "answers": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t)
			a, b := start(t, h, "a"), startBase(t, h, "b")
			b.tamper = func(d *signal.Description) { d.SDP = withInit(d.SDP) }
			if offers {
				a.join()
				b.join()
			} else {
				b.join()
				a.join()
			}
			exchange(t, a, b)
		})
	}
}
