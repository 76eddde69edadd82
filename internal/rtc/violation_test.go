//go:build !js

package rtc_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

const hello = `["hello",{"protocol":1,"max_message":1000}]` + "\n"

// crafted makes a peer whose descriptions say that it knows the extensions, but which sends exactly what
// the test says.
func crafted(t *testing.T, h *hub, session string, first ...string) *basePeer {
	t.Helper()
	x := startBase(t, h, "x")
	x.tamper = func(d *signal.Description) {
		d.Caps = []string{"jsonl", "restart", "something-newer"}
		d.Session, d.Instance = session, "i1"
	}
	x.raw = func(dc *webrtc.DataChannel) {
		for _, s := range first {
			if err := dc.Send([]byte(s)); err != nil {
				t.Error(err)
			}
		}
	}
	return x
}

func TestStreamInAnySlices(t *testing.T) {
	h := newHub(t)
	a := start(t, h, "a").join()
	text := hello + `{"type":"one"}` + "\n" + `["weather",{"t":7}]` + "\r\n\n" + hello +
		`not json` + "\n" + `{"type":"two","payload":"` + strings.Repeat("x", 100000) + `"}` + "\n" +
		`{"type":7}` + "\n[]\n" + `["cancel","r"]` + "\n" + `{"type":"three"}` + "\n"
	x := crafted(t, h, "s1")
	x.raw = func(dc *webrtc.DataChannel) {
		_ = dc.Send(nil)
		for rest, size := text, 1; rest != ""; size = size*3 + 1 {
			n := min(size, len(rest), 60000)
			if err := dc.Send([]byte(rest[:n])); err != nil {
				t.Error(err)
			}
			rest = rest[n:]
		}
	}
	x.join()
	testutil.Eventually(t, "three messages", func() bool { return len(a.received("x")) == 3 })
	if n := get(a.recorder, func() int { return len(a.rejected) }); n != 3 {
		t.Errorf("%d lines rejected, want 3", n)
	}
	if err := a.peer("x").Send([]byte(message(1, 1001)), wire.LaneOrdered); code(err) != wire.CodeTooLarge {
		t.Errorf("Send over the peer's limit: %v", err)
	}
	send(t, a.peer("x"), message(1, 1000))
	testutil.Eventually(t, "hello and a message", func() bool {
		return strings.HasPrefix(strings.Join(x.received(), ""), `["hello",{"protocol":1,`)
	})
}

// A peer whose first line is not hello is refused, and not tried again.
func TestFirstLineIsNotHello(t *testing.T) {
	for _, first := range []string{`{"type":"x"}`, `["pause"]`, `["hello"]`, `["hello",{"protocol":1,"max_message":-1}]`, `junk`, `7`,
		`["hello",{"protocol":1,"padding":"` + strings.Repeat("x", 64<<10) + `"}]`} {
		t.Run(fmt.Sprintf("%.40s", first), func(t *testing.T) {
			h := newHub(t)
			a := start(t, h, "a").join()
			x := crafted(t, h, "s1")
			x.raw = func(dc *webrtc.DataChannel) {
				for part := range slices.Chunk([]byte(first+"\n"+`{"type":"late"}`+"\n"), 16<<10) {
					_ = dc.Send(part) // fails once the link has ended
				}
			}
			x.join()
			a.Connect("x")
			testutil.Eventually(t, "ConnectFailed", func() bool { return get(a.recorder, func() *wire.Error { return a.failed["x"] }) != nil })
			if got := a.history(); got != "[]" {
				t.Errorf("history %s", got)
			}
		})
	}
}

// A peer that leaves a line without an end, where other peers' lines take the memory, is ended, and the log has why.
// One that ends its lines is not.
func TestLineWithoutEnd(t *testing.T) {
	h := newHub(t)
	var log testutil.LogBuffer
	a := start(t, h, "a", func(c *rtc.Config) {
		c.LongLine(500 * time.Millisecond)
		c.Log = zerolog.New(&log).Level(zerolog.WarnLevel)
	}).join()
	a.TakeLineMemory()
	crafted(t, h, "s1", hello, strings.Repeat(" ", 200_000)).join()
	testutil.Eventually(t, "the end", func() bool { return a.history() == "[+x -x]" })
	if reasons := get(a.recorder, func() []error { return a.reasons }); !errors.Is(reasons[0], rtc.ErrViolation) {
		t.Errorf("ended because %v", reasons)
	}
	testutil.Eventually(t, "the log", func() bool { return hasLine(&log, `it does not end a line of over 65536 bytes`) })
	b := start(t, h, "b").join()
	linked(t, a, b)
	for i := range 3 {
		send(t, b.peer("a"), message(i, 200_000))
	}
	testutil.Eventually(t, "long messages of another peer", func() bool { return len(a.received("b")) == 3 })
}

// A peer that says nothing is not connected either, and the log has what is missing.
func TestNoHello(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	var log testutil.LogBuffer
	a := start(t, h, "a", func(c *rtc.Config) {
		c.ConnectTimeout = 2 * time.Second
		c.Log = zerolog.New(&log).Level(zerolog.InfoLevel)
	}).join()
	crafted(t, h, "s1").join()
	testutil.Eventually(t, "the log", func() bool { return hasLine(&log, `"missing":"the peer has not said hello, `) })
	if a.history() != "[]" {
		t.Errorf("history %s", a.history())
	}
}

// A new session of the same process is a link that was rebuilt. If it had been up, what was on its way is
// lost, and that must be reported; if not, there is nothing to report.
func TestRebuiltLink(t *testing.T) {
	t.Parallel()
	for _, up := range []bool{true, false} {
		t.Run(fmt.Sprintf("up %t", up), func(t *testing.T) {
			h := newHub(t)
			a := start(t, h, "a").join()
			x := crafted(t, h, "s1")
			opened := make(chan struct{}, 1)
			x.raw = func(dc *webrtc.DataChannel) {
				if up {
					_ = dc.Send([]byte(hello))
				}
				opened <- struct{}{}
			}
			x.join()
			<-opened
			want := "[+x]"
			if up {
				testutil.Eventually(t, "the first link", func() bool { return a.peer("x") != nil })
				want = "[+x -x +x]"
			}
			y := crafted(t, h, "s2", hello)
			y.join()
			testutil.Eventually(t, "the new link", func() bool { return a.history() == want })
			if r := get(a.recorder, func() []error { return a.reasons }); up && !errors.Is(r[0], rtc.ErrReplaced) {
				t.Errorf("reason %v", r)
			}
			send(t, a.peer("x"), `{"type":"t"}`)
			testutil.Eventually(t, "a message", func() bool { return strings.Contains(strings.Join(y.received(), ""), `{"type":"t"}`) })
		})
	}
}

// A repeated offer is answered again, but a hundred of them are not answered a hundred times, and change nothing. An ICE restart is not the answerer's to make.
func TestRepeatedOffer(t *testing.T) {
	h := newHub(t)
	var offer signal.Message
	h.setFilter(func(m signal.Message) []signal.Message {
		if m.Type == signal.Offer {
			offer = m
		}
		return []signal.Message{m}
	})
	a, b := start(t, h, "a").join(), start(t, h, "b").join()
	linked(t, a, b)
	h.setFilter(nil)
	for range 100 {
		h.deliver(offer)
	}
	testutil.Eventually(t, "the answer again", func() bool { return h.count(signal.Answer, "a", "b") > 1 })
	send(t, a.peer("b"), `{"type":"t"}`)
	send(t, b.peer("a"), `{"type":"t"}`)
	testutil.Eventually(t, "messages", func() bool { return len(b.received("a")) == 1 && len(a.received("b")) == 1 })
	if ha, hb := a.history(), b.history(); ha != "[+b]" || hb != "[+a]" {
		t.Errorf("history %s and %s", ha, hb)
	}
	if n := h.count(signal.Answer, "a", "b"); n > 5 {
		t.Errorf("%d answers to one offer that came a hundred times", n)
	}
}

// Channels that are not the mesh's, or not reliable, are not used.
func TestWrongChannels(t *testing.T) {
	h := newHub(t)
	a := start(t, h, "a").join()
	x := crafted(t, h, "s1", hello)
	pc := x.newPC("a")
	if _, err := pc.CreateDataChannel("chat", nil); err != nil {
		t.Fatal(err)
	}
	dc, err := pc.CreateDataChannel("mesh", nil)
	if err != nil {
		t.Fatal(err)
	}
	x.use("a", dc)
	x.h.mu.Lock()
	x.h.members["x"] = x
	x.h.mu.Unlock()
	d, err := pc.CreateOffer(nil)
	if err == nil {
		err = pc.SetLocalDescription(d)
	}
	if err != nil {
		t.Fatal(err)
	}
	x.describe(signal.Offer, "a", d)
	testutil.Eventually(t, "the link", func() bool { return a.peer("x") != nil })
	// Another one of the same name is not taken for it either.
	if _, err := pc.CreateDataChannel("mesh", nil); err != nil {
		t.Fatal(err)
	}
	send(t, a.peer("x"), `{"type":"t"}`)
	testutil.Eventually(t, "a message", func() bool { return strings.Contains(strings.Join(x.received(), ""), `{"type":"t"}`) })

	x.mu.Lock()
	first := x.pcs["a"]
	x.mu.Unlock()
	_ = first.Close() // the link would stay until the next one is up
	testutil.Eventually(t, "the end", func() bool { return a.history() == "[+x -x]" })
	unordered := crafted(t, h, "s2")
	pc = unordered.newPC("a")
	ordered := false
	if _, err = pc.CreateDataChannel("mesh", &webrtc.DataChannelInit{Ordered: &ordered}); err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	h.members["x"] = unordered
	h.mu.Unlock()
	if d, err = pc.CreateOffer(nil); err == nil {
		err = pc.SetLocalDescription(d)
	}
	if err != nil {
		t.Fatal(err)
	}
	unordered.describe(signal.Offer, "a", d)
	a.Connect("x")
	testutil.Eventually(t, "ConnectFailed", func() bool { return get(a.recorder, func() *wire.Error { return a.failed["x"] }) != nil })
}
