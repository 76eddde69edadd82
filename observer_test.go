package mesh

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

func TestObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told testutil.Record[string]
		var lost error
		_, f := newFakeAgent(t, Config{Observer: Observer{
			LinkUp: func(p Peer) { told.Add("up " + p.ID + " " + p.Key) },
			LinkDown: func(p Peer, err error) {
				told.Add("down " + p.ID)
				if !errors.Is(err, ErrPeerGone) && !errors.Is(err, ErrSidecarLost) {
					t.Error(err)
				}
			},
			PathChanged: func(p Peer, path Path, local, remote netip.AddrPort) {
				told.Add("path " + p.ID + " " + string(path) + " " + local.String() + " " + remote.String())
			},
			Restarted: func(cause error) { lost = cause; told.Add("restarted") },
			Dropped: func(peer, typ, reason string) {
				told.Add("dropped " + peer + " " + typ + " " + reason)
				panic("an observer's panic ends nothing")
			},
		}}, true)
		f.say(`{"type":"peer_connected","payload":{"peer_id":"bob","key":"k"}}`)
		f.say(`{"type":"path","payload":{"peer_id":"bob","path":"relayed","local":"192.0.2.1:1","remote":"[2001:db8::1]:2"}}`)
		f.say(`{"type":"path","payload":{"peer_id":"nobody","path":"direct"}}`)
		f.say(from("bob", `{"type":"x_response","request_id":"1"}`))
		f.say(from("bob", `{"type":"nobody_wants"}`))
		synctest.Wait()
		f.say(`{"type":"peer_disconnected","payload":{"peer_id":"bob"}}`)
		f.connect("carol")
		synctest.Wait()
		f.hangUp()
		told.Wait(t, "the restart", func(l []string) bool { return l[len(l)-1] == "restarted" })
		want := []string{"up bob k", "path bob relayed 192.0.2.1:1 [2001:db8::1]:2", "dropped bob x_response unexpected_response", "dropped bob nobody_wants no_handler", "down bob", "up carol ", "down carol", "restarted"}
		got := told.All()
		if len(got) != len(want) {
			t.Fatalf("%q", got)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%q, want %q", got[i], want[i])
			}
		}
		if lost == nil {
			t.Error("no cause")
		}
	})
}

// That the peer whom a handler has asked has no handler is no reason to register one here, and nothing was dropped.
func TestNoHandlerOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reports testutil.Record[error]
		m, f := newFakeAgent(t, Config{OnError: reports.Add, Handlers: map[string]Handler{
			"note": func(context.Context, *Message) (any, error) { return nil, fmt.Errorf("carol: %w", ErrNoHandler) },
		}}, true)
		f.connect("bob")
		f.say(from("bob", `{"type":"note"}`))
		synctest.Wait()
		l := reports.All()
		if len(l) != 1 || !errors.Is(l[0], ErrNoHandler) || strings.Contains(l[0].Error(), "register") || len(m.drops.counts()) > 0 {
			t.Errorf("reported %v, dropped %v", l, m.drops.counts())
		}
	})
}
