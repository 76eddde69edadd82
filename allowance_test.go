package mesh

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// told takes what the agent has said of pausing so far, and notes what is held back of which peer.
func (f *fakeSidecar) told(held map[string]wire.Stop) {
	synctest.Wait()
	for len(f.lines) > 0 {
		line := f.heard()
		payload := line["payload"].(map[string]any)
		switch line["type"] {
		case "resume":
			held[payload["peer_id"].(string)] = wire.StopNothing
		case "pause":
			held[payload["peer_id"].(string)] = wire.StopNewWork
			if payload["ordered"] == true {
				held[payload["peer_id"].(string)] = wire.StopOrdered
			}
			if payload["all"] == true {
				held[payload["peer_id"].(string)] = wire.StopAll
			}
		}
	}
}

// flooded returns an agent whose inboxes are as full as many peers can make them, who go on until they are held back as
// heeds says, and what is held back of whom. Their handlers wait for release.
func flooded(t *testing.T, heeds wire.Stop, handlers map[string]Handler) (m *Mesh, f *fakeSidecar, held map[string]wire.Stop, release chan struct{}) {
	const peers = 48 // 8 MiB for each would be too much
	release = make(chan struct{})
	handlers["n"] = func(context.Context, *Message) (any, error) { <-release; return nil, nil }
	m, f = newFakeAgent(t, Config{Handlers: handlers, OnError: func(err error) { t.Errorf("reported: %v", err) }}, true)
	held = map[string]wire.Stop{}
	flood := from("%s", `{"type":"n","payload":"`+strings.Repeat("x", 1<<20)+`"}`)
	var ids []string
	for i := range peers {
		ids = append(ids, fmt.Sprint("mallory-", i))
	}
	f.connect(ids...)
	for range 2 * stopFactor * inboxHigh >> 20 { // far more than a peer gets alone
		for _, id := range ids {
			if held[id] < heeds {
				f.say(fmt.Sprintf(flood, id))
			}
		}
		f.told(held)
	}
	for _, id := range ids {
		if held[id] < heeds {
			t.Errorf("%s is not held back: %v", id, held[id])
		}
	}
	if used := m.inboxes.used.Load(); used > inboxesFactor*inboxHigh+peers<<20 { // the message of each that was on its way
		t.Errorf("the inboxes hold %d bytes together, want %d at most", used, inboxesFactor*inboxHigh)
	}
	return m, f, held, release
}

// Many peers that flood together fill no more than the inboxes may hold together, whether they heed a pause or not. A quiet
// peer is none of those that pay for it, nothing is dropped, and all of it is given back.
func TestManyFloods(t *testing.T) {
	testutil.SkipUnlessFull(t, "floods of many peers, but for one") // TestPausedForOthers
	for _, heeds := range []wire.Stop{wire.StopNewWork, wire.StopAll} {
		synctest.Test(t, func(t *testing.T) {
			var handled testutil.Record[string]
			m, f, held, release := flooded(t, heeds, map[string]Handler{
				"note": func(_ context.Context, msg *Message) (any, error) { handled.Add(msg.From); return nil, nil },
			})
			f.connect("alice")
			f.say(from("alice", `{"type":"note","payload":"`+strings.Repeat("x", inboxLeast/2)+`"}`))
			f.told(held)
			if held["alice"] != wire.StopNothing || !slices.Equal(handled.All(), []string{"alice"}) {
				t.Errorf("of a peer that sends little %v is held back; handled are messages of %v", held["alice"], handled.All())
			}
			close(release)
			f.told(held)
			for id, stop := range held {
				if stop != wire.StopNothing {
					t.Errorf("of %s %v remains held back", id, stop)
				}
			}
			if used := m.inboxes.used.Load(); used != 0 || len(m.inboxes.waiters()) != 0 {
				t.Errorf("the empty inboxes hold %d bytes, or wait for a larger share", used)
			}
		})
	}
}

// A peer that is paused for what others have in their inboxes may go on once they have less, although nothing changes
// in its own: its handler may be waiting for its next message.
func TestPausedForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := make(chan struct{})
		m, f, held, release := flooded(t, wire.StopNewWork, map[string]Handler{
			"session_request": func(ctx context.Context, _ *Message) (any, error) { <-next; return nil, nil },
			"go":              func(context.Context, *Message) (any, error) { close(next); return nil, nil },
		})
		f.connect("alice")
		f.say(from("alice", `{"type":"session_request","request_id":"1","payload":"`+strings.Repeat("x", 4<<20)+`"}`))
		f.told(held)
		if held["alice"] != wire.StopNewWork {
			t.Errorf("what is held back is %v", held["alice"])
		}
		close(release)
		f.told(held)
		if held["alice"] != wire.StopNothing {
			t.Errorf("when the others are done, %v is held back still", held["alice"])
		}
		f.say(from("alice", `{"type":"go"}`))
		f.told(held)
		if used := m.inboxes.used.Load(); used != 0 {
			t.Errorf("the empty inboxes hold %d bytes", used)
		}
	})
}

// Whatever the others hold, a peer may have a little, and never more than it could have alone. Who holds it back lets it go
// on as soon as its share is large enough again.
func TestJudge(t *testing.T) {
	const kib, mib = 1 << 10, 1 << 20
	for name, tt := range map[string]struct {
		used, bytes int // of all inboxes; of this one
		since       int // arrived while it is held back
		was         holdback
		want        wire.Stop
	}{
		"alone":                          {8 * mib, 8 * mib, 0, holdback{}, wire.StopNothing},
		"alone, too much":                {9 * mib, 9 * mib, 0, holdback{}, wire.StopNewWork},
		"not low enough":                 {3 * mib, 3 * mib, 0, holdback{over: true}, wire.StopNewWork},
		"low":                            {2 * mib, 2 * mib, 0, holdback{over: true}, wire.StopNothing},
		"alone, ignores the pause":       {33 * mib, 33 * mib, 33 * mib, holdback{over: true}, wire.StopAll},
		"alone, ignored it, all handled": {0, 0, 33 * mib, holdback{ignores: true}, wire.StopNothing},
		"among few others":               {128 * mib, 8 * mib, 0, holdback{}, wire.StopNothing},
		"among many others":              {192 * mib, 5 * mib, 0, holdback{}, wire.StopNewWork},
		"little, among many others":      {192 * mib, 4 * mib, 0, holdback{}, wire.StopNothing},
		"its share has grown":            {100 * mib, 5 * mib, 0, holdback{short: true}, wire.StopNothing},
		"its share has grown a bit":      {190 * mib, 4 * mib, 0, holdback{short: true}, wire.StopNewWork},
		"many others, ignores the pause": {240 * mib, 5 * mib, 5 * mib, holdback{short: true}, wire.StopAll},
		"all is taken, and it has some":  {256 * mib, 32 * kib, 0, holdback{}, wire.StopNothing},
		"all is taken, and it has more":  {300 * mib, 33 * kib, 0, holdback{}, wire.StopNewWork},
		"all is taken, ignores":          {300 * mib, 129 * kib, 129 * kib, holdback{short: true}, wire.StopAll},
	} {
		a := newAllowance(16<<20, func() {})
		a.add(tt.used)
		h, need := a.judge(tt.bytes, tt.since, a.share(), tt.was)
		if got := h.stop(); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
		if (h.short || h.ignores && !h.over) != (need > 0) {
			t.Errorf("%s: held back for %+v, a share of %d would change that", name, h, need)
		}
		if need == 0 {
			continue
		}
		if again, _ := a.judge(tt.bytes, 0, need, h); again == h {
			t.Errorf("%s: a share of %d changes nothing", name, need)
		}
		if again, _ := a.judge(tt.bytes, 0, need-16, h); again != h && need-16 > a.share() {
			t.Errorf("%s: a share of less than %d does as well", name, need)
		}
	}
}

// A message that was on its way when its peer was asked to pause is no disregard of that, however long messages may be.
func TestJudgeLongMessages(t *testing.T) {
	for _, longest := range []int{16 << 20, 64 << 20, 1 << 30} {
		a := newAllowance(longest, func() {})
		size := longest + 1<<10
		a.add(size)
		h, _ := a.judge(size, 0, a.share(), holdback{})
		a.add(size)
		if h, _ = a.judge(2*size, size, a.share(), h); h.stop() != wire.StopNewWork {
			t.Errorf("with two messages of %d bytes the peer is told %v, want %v", longest, h.stop(), wire.StopNewWork)
		}
	}
}

// Messages are dropped only if the sidecar knows no pause.
func TestFull(t *testing.T) {
	for _, tt := range []struct {
		used, most int
		pauses     bool
	}{
		{0, 256 << 20, false},
		{512 << 20, 256 << 20, false},
		{512<<20 + 1, inboxLeast, false},
		{512<<20 + 1, 256 << 20, true},
	} {
		a := newAllowance(16<<20, func() {})
		a.add(tt.used)
		a.pauses.Store(tt.pauses)
		if a.full(tt.most) || !a.full(tt.most+1) {
			t.Errorf("with %d bytes in use the most that gets in is not %d", tt.used, tt.most)
		}
	}
}

// What was on its way when requests were held back does not add up over many times: its peer has heeded each of them.
func TestHeldBackAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold, release := make(chan struct{}), make(chan struct{})
		m, f := newFakeAgent(t, Config{Handlers: map[string]Handler{
			"n":         func(context.Context, *Message) (any, error) { <-hold; return nil, nil },
			"x_request": func(context.Context, *Message) (any, error) { <-release; return nil, nil },
		}}, true)
		f.connect("alice")
		f.say(from("alice", `{"type":"n","payload":"`+strings.Repeat("x", 7<<20)+`"}`))
		synctest.Wait()
		m.inboxes.add(241 << 20) // what others have
		held := map[string]wire.Stop{}
		number := 0
		request := func() {
			number++
			f.say(from("alice", fmt.Sprintf(`{"type":"x_request","request_id":"%d","payload":"%s"}`, number, strings.Repeat("x", 300<<10))))
		}
		for range 40 {
			for f.told(held); held["alice"] < wire.StopNewWork; f.told(held) {
				request()
			}
			request() // on its way
			if f.told(held); held["alice"] != wire.StopNewWork {
				t.Fatalf("after %d requests %v is held back", number, held["alice"])
			}
			close(release) // all are handled
			f.told(held)
			release = make(chan struct{})
		}
		close(hold)
		close(release)
		synctest.Wait()
	})
}
