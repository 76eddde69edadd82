package mesh

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// told takes what the agent has said of pausing so far, and notes which peers are paused.
func (f *fakeSidecar) told(paused map[string]bool) {
	synctest.Wait()
	for len(f.lines) > 0 {
		line := f.heard()
		if typ := line["type"].(string); typ == "pause" || typ == "resume" {
			paused[line["payload"].(map[string]any)["peer_id"].(string)] = typ == "pause"
		}
	}
}

// Many peers that flood together fill no more than the inboxes may hold together, a quiet peer is none of those that
// pay for it, and all of it is given back.
func TestManyFloods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const peers = 48 // 8 MiB for each would be too much
		release := make(chan struct{})
		var handled testutil.Record[string]
		m, f := newFakeAgent(t, Config{Handlers: map[string]Handler{
			"n": func(_ context.Context, msg *Message) (any, error) { <-release; handled.Add(msg.From); return nil, nil },
		}}, true)
		paused := map[string]bool{}
		flood := from("%s", `{"type":"n","payload":"`+strings.Repeat("x", 1<<20)+`"}`)
		var ids []string
		for i := range peers {
			ids = append(ids, fmt.Sprint("mallory-", i))
		}
		f.connect(ids...)
		for range 2 * inboxHigh >> 20 { // far more than a peer gets alone
			for _, id := range ids {
				if !paused[id] {
					f.say(fmt.Sprintf(flood, id))
				}
			}
			f.told(paused)
		}
		if i := slices.IndexFunc(ids, func(id string) bool { return !paused[id] }); i >= 0 {
			t.Errorf("%s is not paused", ids[i])
		}
		if used := m.inboxes.used.Load(); used > inboxesHigh {
			t.Errorf("the inboxes hold %d bytes together, want %d at most", used, inboxesHigh)
		}
		f.connect("alice")
		f.say(from("alice", `{"type":"n","payload":"`+strings.Repeat("x", inboxLeast/2)+`"}`))
		f.told(paused)
		if paused["alice"] {
			t.Error("a peer that sends little is paused for others")
		}
		close(release)
		f.told(paused)
		for id, is := range paused {
			if is {
				t.Errorf("%s remains paused", id)
			}
		}
		if got, used := handled.All(), m.inboxes.used.Load(); !slices.Contains(got, "alice") || used != 0 {
			t.Errorf("handled are messages of %v; the empty inboxes hold %d bytes", got, used)
		}
	})
}

// Whatever the others hold, a peer may have a little, and never more than it could have alone.
func TestAllowance(t *testing.T) {
	for _, tt := range []struct{ used, want, most int }{
		{0, inboxHigh, inboxHard},
		{inboxesHigh / 2, inboxHigh, inboxHard},
		{inboxesHigh - 16<<20, 1 << 20, inboxHard},
		{inboxesHigh, inboxLeast, inboxHard},
		{inboxesHard, inboxLeast, inboxHard},
		{inboxesHard + 1, inboxLeast, inboxLeast},
	} {
		var a allowance
		a.add(tt.used)
		if got := a.high(); got != tt.want {
			t.Errorf("with %d bytes in use a peer may have %d, want %d", tt.used, got, tt.want)
		}
		if a.full(tt.most) || !a.full(tt.most+1) {
			t.Errorf("with %d bytes in use the most that gets in is not %d", tt.used, tt.most)
		}
	}
}
