//go:build !js

package rtc_test

import (
	"context"
	"encoding/json"
	"flag"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

var closes = flag.Int("rtc.closes", 5, "how often TestMessageBeforeClose closes")

// What is sent right before Close arrives, whether the peer can say `drained` or only acknowledge.
func TestMessageBeforeClose(t *testing.T) {
	t.Parallel()
	for name, without := range map[string][]string{"drain": nil, "stream": {"drain"}, "base": {"drain", "jsonl", "restart"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range *closes {
				messageBeforeClose(t, without)
			}
		})
	}
}

func messageBeforeClose(t *testing.T, without []string) {
	h := newHub(t)
	h.setFilter(func(m signal.Message) []signal.Message { return []signal.Message{withoutCaps(t, m, without)} })
	a, b := start(t, h, "a"), start(t, h, "b")
	b.onLine = func(p *rtc.Peer, l *wire.PeerLine) bool {
		_ = p.Send(l.Message.Raw, wire.LaneOrdered)
		return false
	}
	a.join()
	b.join()
	linked(t, a, b)
	const count = 3
	for i := range count {
		send(t, a.peer("b"), message(i, 20_000))
	}
	ctx, cancel := context.WithTimeout(context.Background(), testutil.Patience)
	defer cancel()
	if err := a.Node.Close(ctx); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, "the end of the link", func() bool { return b.peer("a") == nil })
	if n := len(b.received("a")); n != count {
		t.Fatalf("%d of %d messages arrived", n, count)
	}
	b.close(t)
}

// withoutCaps is a message as a peer that lacks capabilities would send it.
func withoutCaps(t *testing.T, m signal.Message, caps []string) signal.Message {
	if m.Type != signal.Offer && m.Type != signal.Answer || caps == nil {
		return m
	}
	var d signal.Description
	if err := json.Unmarshal(m.Payload, &d); err != nil {
		t.Error(err)
	}
	d.Caps = slices.DeleteFunc(d.Caps, func(c string) bool { return slices.Contains(caps, c) })
	m.Payload, _ = json.Marshal(d)
	return m
}

// An answer lists what the offer lists, and no more.
func TestAnswerCaps(t *testing.T) {
	for _, without := range [][]string{nil, {"drain"}, {"restart"}, {"jsonl"}, {"streams"}, {"jsonl", "restart", "drain", "streams"}} {
		h := newHub(t)
		var answer atomic.Pointer[[]string]
		h.setFilter(func(m signal.Message) []signal.Message {
			if m.Type == signal.Answer {
				var d signal.Description
				if err := json.Unmarshal(m.Payload, &d); err != nil {
					t.Error(err)
				}
				answer.Store(&d.Caps)
				return []signal.Message{m}
			}
			return []signal.Message{withoutCaps(t, m, without)}
		})
		a, b := start(t, h, "a").join(), start(t, h, "b").join()
		linked(t, a, b)
		want := slices.DeleteFunc([]string{"jsonl", "restart", "drain", "streams"}, func(c string) bool {
			return slices.Contains(without, c) || c != "restart" && slices.Contains(without, "jsonl")
		})
		if got := *answer.Load(); !slices.Equal(got, want) {
			t.Errorf("an offer without %q is answered with %q", without, got)
		}
		a.close(t)
		b.close(t)
	}
}
