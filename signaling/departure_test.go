package signaling_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/chatixia-ai/mesh/signaling"
)

// TestLeft: those who asked are told 3 s after a connection of one who asked has ended without a word, if it was heard
// just before, does not come back, and is not one of several.
func TestLeft(t *testing.T) {
	const asked = `{"left":true}`
	for _, c := range []struct {
		name    string
		payload string // of the register of the one that leaves
		leave   func(t *testing.T, s *site, p *peer)
		told    bool
	}{
		{"its process ends", asked, func(_ *testing.T, _ *site, p *peer) { _ = p.CloseNow() }, true},
		{"after a while", asked, func(_ *testing.T, _ *site, p *peer) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_, _, _ = p.Read(ctx) // in which it answers pings
			_ = p.CloseNow()      // which Read does, unless the time is over while it answers one
		}, true},
		{"it says goodbye", asked, func(_ *testing.T, _ *site, p *peer) { _ = p.Close(websocket.StatusNormalClosure, "") }, false},
		{"it has not asked", `{}`, func(_ *testing.T, _ *site, p *peer) { _ = p.CloseNow() }, false},
		{"it was silent before", asked, func(t *testing.T, s *site, p *peer) {
			silent := s.silent(t, "key-one-of-tests") // in place of p
			silent.registerWith(asked)
			heard := listen(silent)
			time.Sleep(8 * time.Second)
			heard()
		}, false},
		{"it was heard before", asked, func(t *testing.T, s *site, p *peer) {
			silent := s.silent(t, "key-one-of-tests")
			silent.registerWith(asked)
			heard := listen(silent)
			time.Sleep(4 * time.Second)
			heard()
		}, true},
		{"it is silent for good", asked, func(*testing.T, *site, *peer) { time.Sleep(time.Minute) }, false},
		{"it comes back", asked, func(t *testing.T, s *site, p *peer) {
			_ = p.CloseNow()
			time.Sleep(2 * time.Second)
			s.dial(t, "key-one-of-tests")
		}, false},
		{"it comes back and goes at once", asked, func(t *testing.T, s *site, p *peer) {
			_ = p.CloseNow()
			time.Sleep(2 * time.Second)
			_ = s.dial(t, "key-one-of-tests").CloseNow()
		}, false},
		{"it is replaced", asked, func(t *testing.T, s *site, p *peer) {
			next := s.dial(t, "key-one-of-tests")
			next.registerWith(asked)
			next.listed()
			_ = p.CloseNow()
		}, false},
		{"others go before it", asked, func(t *testing.T, s *site, p *peer) {
			for i := range 3 {
				_ = s.dial(t, fmt.Sprintf("key-more-of-tests-%d", i)).CloseNow()
			}
			time.Sleep(time.Second)
			_ = p.CloseNow()
		}, false},
		{"others go after it", asked, func(t *testing.T, s *site, p *peer) {
			_ = p.CloseNow()
			for i := range 3 {
				time.Sleep(500 * time.Millisecond)
				_ = s.dial(t, fmt.Sprintf("key-more-of-tests-%d", i)).CloseNow()
			}
		}, false},
		{"another one comes and goes beside it", asked, func(t *testing.T, s *site, p *peer) {
			for range 4 {
				_ = s.dial(t, "key-more-of-tests-0").CloseNow()
				time.Sleep(100 * time.Millisecond)
			}
			_ = p.CloseNow()
		}, true},
		{"two others go with it", asked, func(t *testing.T, s *site, p *peer) {
			for i := range 2 {
				_ = s.dial(t, fmt.Sprintf("key-more-of-tests-%d", i)).CloseNow()
			}
			_ = p.CloseNow()
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serveInMemory(t, func(c *signaling.Config) {
					keys := map[string]signaling.Key{}
					for key, k := range testKeys {
						keys[key] = k
					}
					for i := range 3 {
						keys[fmt.Sprintf("key-more-of-tests-%d", i)] = signaling.Key{PeerID: fmt.Sprintf("more-%d", i), Role: "agent"}
					}
					c.Keys = keys
				})
				watcher, base := s.dial(t, "key-two-of-tests"), s.dial(t, "key-three-of-tests")
				watcher.registerWith(asked)
				watcher.listed()
				base.registerWith(`{}`)
				base.listed()
				p := s.dial(t, "key-one-of-tests")
				p.registerWith(c.payload)
				p.listed()
				heard, nothing := listen(watcher), listen(base)
				c.leave(t, s, p)
				time.Sleep(5 * time.Second)
				synctest.Wait()
				told := strings.Join(heard(), "")
				if c.told != strings.Contains(told, `{"type":"left","peer_id":"registry","payload":{"peer_id":"agent-001","ago":3000}}`) ||
					!c.told && strings.Contains(told, `"left"`) {
					t.Errorf("told %q", told)
				}
				if told := strings.Join(nothing(), ""); strings.Contains(told, `"left"`) {
					t.Errorf("who did not ask was told %q", told)
				}
			})
		})
	}
}

// silent is dial for a peer that answers no pings.
func (s *site) silent(t *testing.T, key string) *peer {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), s.URL+"/ws?token="+s.token(t, key), &websocket.DialOptions{
		HTTPClient: s.Client(), OnPingReceived: func(context.Context, []byte) bool { return false },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	return &peer{t, testKeys[key].PeerID, c}
}

// listen reads until heard is called, which ends the connection and returns what came.
func listen(p *peer) (heard func() []string) {
	var got []string
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(done)
		for {
			_, b, err := p.Read(ctx)
			if err != nil {
				return
			}
			got = append(got, string(b))
		}
	}()
	return func() []string {
		cancel()
		<-done
		return got
	}
}

// TestBaseListed: who has asked to be told of departures is told which peers have not.
func TestBaseListed(t *testing.T) {
	s := serve(t, nil)
	for _, c := range []struct{ key, payload, want string }{
		{"key-one-of-tests", `{"left":true}`, `{"peers":[],"base":[]}`},
		{"key-two-of-tests", `{}`, `{"peers":["agent-001"]}`},
		{"key-three-of-tests", `{"left":true}`, `{"peers":["agent-001","agent-002"],"base":["agent-002"]}`},
	} {
		p := s.dial(t, c.key)
		p.registerWith(c.payload)
		if got, want := p.next(), `{"type":"peer_list","peer_id":"registry","payload":`+c.want+`}`; got != want {
			t.Errorf("%s: got %s, want %s", c.payload, got, want)
		}
	}
}

// TestLeftBehind: a server that shuts down tells of nobody.
func TestLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveInMemory(t, nil)
		watcher, p := s.dial(t, "key-two-of-tests"), s.dial(t, "key-one-of-tests")
		for _, p := range []*peer{watcher, p} {
			p.registerWith(`{"left":true}`)
			p.listed()
		}
		heard := listen(watcher)
		_ = p.CloseNow()
		time.Sleep(2 * time.Second)
		closed := make(chan struct{})
		go func() { _ = s.sig.Close(); close(closed) }()
		time.Sleep(5 * time.Second)
		<-closed
		if got := heard(); len(got) != 0 {
			t.Errorf("told %q", got)
		}
	})
}
