//go:build !js

package rtc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
	"github.com/chatixia-ai/mesh/signaling"
)

// tellLeft has signaling say that a peer's process ended some time ago.
func tellLeft(t *testing.T, to *agent, peer string, ago time.Duration) {
	t.Helper()
	payload, err := json.Marshal(signal.LeftPayload{PeerID: peer, Ago: ago.Milliseconds()})
	if err != nil {
		t.Fatal(err)
	}
	to.Receive(signal.Message{Type: signal.Left, PeerID: "registry", Payload: payload})
}

// A peer that falls silent and leaves signaling in the same moment is dead.
func TestPeerDies(t *testing.T) {
	t.Parallel()
	for _, told := range []time.Duration{300 * time.Millisecond, 3 * time.Second} { // before ICE has noticed anything, and after
		t.Run(told.String(), func(t *testing.T) {
			t.Parallel()
			h, a, b, ca, cb := cables(t, func(c *rtc.Config) {
				c.ICEKeepalive(500 * time.Millisecond)
				c.RecoveryTimeout = time.Hour
			})
			h.leave("b")
			ca.cut.Store(true)
			cb.cut.Store(true)
			died := time.Now()
			time.Sleep(told)
			tellLeft(t, a, "b", time.Since(died))
			testutil.Eventually(t, "the end", func() bool { return a.history() == "[+b -b]" })
			if r := get(a.recorder, func() []error { return a.reasons })[0]; !errors.Is(r, rtc.ErrDied) {
				t.Errorf("reason %v", r)
			}
			if b.history() != "[+a]" {
				t.Errorf("history of the other end %s", b.history())
			}
		})
	}
}

// That other peers are silent, too, is a reason to doubt it: for as long as they are, and not if they have left as well.
func TestPeerDiesBesideOthers(t *testing.T) {
	t.Parallel()
	for name, together := range map[string]bool{"both die": true, "the other one stands still": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t)
			slow := func(c *rtc.Config) { c.ICEKeepalive(500 * time.Millisecond); c.RecoveryTimeout = time.Hour }
			cb, cc := newCable(t), newCable(t)
			a := start(t, h, "a", slow).join()
			b := start(t, h, "b", slow, func(c *rtc.Config) { c.UseNet(cb) }).join()
			c := start(t, h, "c", slow, func(c *rtc.Config) { c.UseNet(cc) }).join()
			linked(t, a, b)
			linked(t, a, c)
			if !together {
				cc.cut.Store(true)
				testutil.Eventually(t, "the silence of the other one", func() bool { return a.Recovering("c") })
			}
			h.leave("b")
			cb.cut.Store(true)
			died := time.Now()
			if together {
				h.leave("c")
				cc.cut.Store(true)
			}
			testutil.Eventually(t, "the silence", func() bool { return a.Recovering("b") })
			tellLeft(t, a, "b", time.Since(died))
			if together {
				tellLeft(t, a, "c", time.Since(died))
			} else {
				time.Sleep(3 * time.Second) // for longer than until a dead one is found out
				if strings.Contains(a.history(), "-b") {
					t.Error("b counts as dead, though it may be this host that is cut off")
				}
				cc.cut.Store(false)
			}
			testutil.Eventually(t, "the end", func() bool { return strings.Contains(a.history(), "-b") })
			if got := strings.Contains(a.history(), "-c"); together && !got {
				testutil.Eventually(t, "the other end", func() bool { return strings.Contains(a.history(), "-c") })
			} else if !together && got {
				t.Error("the one that stood still counts as dead")
			}
		})
	}
}

// The same with the signaling server and its clients, and the true delays: after 3 s the server says that the peer has left,
// and after 5 s of silence it is dead. A peer whose connection is reset while it is alive comes back at once.
func TestPeerIsKilled(t *testing.T) {
	t.Parallel()
	for _, load := range []bool{false, true} {
		t.Run(fmt.Sprintf("something on its way %t", load), func(t *testing.T) {
			t.Parallel()
			testPeerIsKilled(t, load)
		})
	}
}

// loaded sends to a peer for a second, and then goes on until the link ends.
func loaded(t *testing.T, p *rtc.Peer) {
	t.Helper()
	var sending sync.WaitGroup
	begun := make(chan struct{})
	sending.Go(func() {
		for n := 0; p.Send([]byte(message(n, 500)), wire.LaneOrdered) == nil; n++ {
			if n == 200 {
				close(begun)
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	t.Cleanup(sending.Wait)
	<-begun
}

// serveSignaling runs a signaling server for the agents a and b, and returns its URL.
func serveSignaling(t *testing.T) (url string) {
	t.Helper()
	keys := map[string]signaling.Key{"key-a": {PeerID: "a", Role: "agent"}, "key-b": {PeerID: "b", Role: "agent"}}
	server, err := signaling.New(signaling.Config{Secret: strings.Repeat("s", 32), Keys: keys, AllowWeakSecrets: true})
	if err != nil {
		t.Fatal(err)
	}
	site := httptest.NewServer(server)
	t.Cleanup(func() {
		_ = server.Close()
		site.Close()
	})
	return site.URL
}

func testPeerIsKilled(t *testing.T, load bool) {
	url := serveSignaling(t)
	a, b := signaled(t, url, "a"), signaled(t, url, "b")
	linked(t, a.agent, b.agent)
	b.reset(false)
	time.Sleep(6 * time.Second) // in which a dead one is found out
	if got := a.history(); got != "[+b]" {
		t.Fatalf("history %s after a reset of signaling", got)
	}
	if load { // what arrives until the end keeps ICE from noticing, and what is on its way then makes us doubt the path before ICE does
		loaded(t, a.peer("b"))
	}
	killed := time.Now()
	a.net.cut.Store(true)
	b.net.cut.Store(true)
	b.reset(true)
	testutil.Eventually(t, "the end", func() bool { return a.history() == "[+b -b]" })
	if r := get(a.recorder, func() []error { return a.reasons })[0]; !errors.Is(r, rtc.ErrDied) {
		t.Errorf("reason %v after %v", r, time.Since(killed))
	}
}

// signaledAgent is an agent with a signaling client.
type signaledAgent struct {
	*agent
	net *cable

	mu    sync.Mutex
	dead  bool
	conns []net.Conn // to the server
}

func signaled(t *testing.T, url, id string, edit ...func(*rtc.Config)) *signaledAgent {
	t.Helper()
	s := &signaledAgent{net: newCable(t)}
	client := signal.New(signal.Config{
		Settings:   signal.Settings{URL: url + "/ws", TokenURL: url + "/api/token", APIKey: "key-" + id},
		HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: s.dial}},
	})
	cfg := rtc.Config{}
	cfg.OnlyLoopback()
	cfg.UseNet(s.net)
	for _, f := range edit {
		f(&cfg)
	}
	s.agent = &agent{recorder: newRecorder(t, id), id: id}
	node, err := rtc.New(cfg, client, s.recorder)
	if err != nil {
		t.Fatal(err)
	}
	s.Node = node
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = client.Run(ctx, handler{node})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		s.close(t)
	})
	return s
}

func (s *signaledAgent) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.dead {
		_ = c.Close()
		err = errors.New("dead")
	}
	if err != nil {
		return nil, err
	}
	s.conns = append(s.conns, c)
	return c, nil
}

// reset ends its connections as the system does when a process is killed; dead says that there are no more.
func (s *signaledAgent) reset(dead bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = dead
	for _, c := range s.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	s.conns = nil
}

// handler passes on what the client reports.
type handler struct{ *rtc.Node }

func (handler) Status(signal.Status) {}

// However long a peer is cut off, and whenever its connection to signaling is reset from 3 s on after the cut, it is not
// taken for dead, even by a server that says so each time. The clocks run five times as fast as the true ones.
func TestCutOffIsNotDead(t *testing.T) {
	t.Parallel()
	for _, cut := range []time.Duration{2, 4, 6, 9} {
		cut *= time.Second
		for _, reset := range []time.Duration{600 * time.Millisecond, time.Second, cut / 2, cut - 200*time.Millisecond} {
			t.Run(fmt.Sprint(cut, reset), func(t *testing.T) {
				t.Parallel()
				h, a, b, ca, cb := cables(t, func(c *rtc.Config) {
					c.ICEKeepalive(400 * time.Millisecond)
					c.ICEDisconnected(800 * time.Millisecond)
					c.ICEFailed(18 * time.Second)
					c.Dead(time.Second)
				})
				ca.cut.Store(true)
				cb.cut.Store(true)
				h.setMute("b", true)
				began := time.Now()
				time.AfterFunc(reset, func() {
					closed := time.Now()
					time.AfterFunc(600*time.Millisecond, func() { tellLeft(t, a, "b", time.Since(closed)) })
				})
				time.Sleep(time.Until(began.Add(cut)))
				ca.cut.Store(false)
				cb.cut.Store(false)
				h.setMute("b", false)
				send(t, a.peer("b"), `{"type":"t"}`)
				testutil.Eventually(t, "the message", func() bool { return len(b.received("a")) == 1 })
				time.Sleep(2 * time.Second) // in which what signaling has said last would have its effect
				if ha, hb := a.history(), b.history(); ha != "[+b]" || hb != "[+a]" {
					t.Errorf("history %s and %s", ha, hb)
				}
			})
		}
	}
}

// Signaling ends no link by saying that the peer has left: not one that works, nor one to a peer that gives a sign of
// life, nor one of several that are all silent.
func TestLeftIsNotBelieved(t *testing.T) {
	t.Parallel()
	t.Run("the link works", func(t *testing.T) {
		t.Parallel()
		_, a, b := pair(t)
		for range 30 {
			for _, ago := range []time.Duration{0, time.Second, 2 * time.Second, time.Hour, -time.Hour} {
				tellLeft(t, a, "b", ago)
			}
			time.Sleep(100 * time.Millisecond)
		}
		exchangeOne(t, a, b)
	})
	t.Run("the peer signals", func(t *testing.T) {
		t.Parallel()
		_, a, b, ca, cb := cables(t) // the restarts are answered
		ca.cut.Store(true)
		cb.cut.Store(true)
		tellLeft(t, a, "b", 0)
		time.Sleep(4 * time.Second)
		ca.cut.Store(false)
		cb.cut.Store(false)
		exchangeOne(t, a, b)
	})
	t.Run("others are silent, too", func(t *testing.T) {
		t.Parallel()
		// Within that time after the outage b has to be heard, which may take the longer the busier this machine is.
		h, a, b, ca, cb := cables(t, func(c *rtc.Config) { c.Dead(3 * time.Second) })
		cc := newCable(t)
		c := start(t, h, "c", func(c *rtc.Config) { c.UseNet(cc) }).join()
		linked(t, a, b, c)
		h.setMute("b", true) // it gives no sign of life
		h.setMute("c", true)
		for _, x := range []*cable{ca, cb, cc} {
			x.cut.Store(true)
		}
		tellLeft(t, a, "b", 0)
		time.Sleep(4 * time.Second)
		h.setMute("b", false)
		h.setMute("c", false)
		for _, x := range []*cable{ca, cb, cc} {
			x.cut.Store(false)
		}
		exchangeOne(t, a, b)
	})
}

// exchangeOne checks that a message arrives, and that the link was never lost.
func exchangeOne(t *testing.T, a, b *agent) {
	t.Helper()
	send(t, a.peer(b.id), `{"type":"t"}`)
	lost := func(x *agent) []error { return get(x.recorder, func() []error { return x.reasons }) }
	testutil.Eventually(t, "the message", func() bool { return len(b.received(a.id)) == 1 || len(lost(a)) > 0 || len(lost(b)) > 0 })
	for _, x := range []*agent{a, b} {
		if reasons := lost(x); len(reasons) > 0 {
			t.Errorf("%s lost links: %s, %v", x.id, x.history(), reasons)
		}
	}
}
