//go:build !js

package rtc_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// cable is a network that can be cut: what is sent then is lost.
type cable struct {
	*stdnet.Net
	cut     atomic.Bool
	silent  atomic.Bool // only ICE's packets arrive
	dropped atomic.Int64
	drop    func(b []byte, from, to net.Addr) bool // packets of which nothing arrives
	hold    atomic.Bool                            // keep what is sent until release
	twice   atomic.Int64                           // packets that were like the one before

	mu   sync.Mutex
	held []func()
	last []byte
}

// release sends what was kept.
func (c *cable) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold.Store(false)
	for _, send := range c.held {
		send()
	}
	c.held = nil
}

func (c *cable) keep(send func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = append(c.held, send)
}

func newCable(t *testing.T) *cable {
	t.Helper()
	n, err := stdnet.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	return &cable{Net: n}
}

func (c *cable) ListenUDP(network string, addr *net.UDPAddr) (transport.UDPConn, error) {
	conn, err := c.Net.ListenUDP(network, addr)
	if err != nil {
		return nil, err
	}
	return &cableConn{conn, c}, nil
}

type cableConn struct {
	transport.UDPConn
	c *cable
}

func (c *cable) note(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if bytes.Equal(b, c.last) {
		c.twice.Add(1)
	}
	c.last = append(c.last[:0], b...)
}

func (c *cableConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	c.c.note(b)
	if c.c.cut.Load() || c.c.silent.Load() && len(b) > 0 && b[0] > 3 || c.c.drop != nil && c.c.drop(b, c.LocalAddr(), addr) {
		c.c.dropped.Add(1)
		return len(b), nil
	}
	if c.c.hold.Load() {
		b := bytes.Clone(b)
		c.c.keep(func() { _, _ = c.UDPConn.WriteTo(b, addr) })
		return len(b), nil
	}
	return c.UDPConn.WriteTo(b, addr)
}

// cables makes a pair of agents, each with a cable.
func cables(t *testing.T, edit ...func(*rtc.Config)) (h *hub, a, b *agent, ca, cb *cable) {
	t.Helper()
	h = newHub(t)
	ca, cb = newCable(t), newCable(t)
	a = start(t, h, "a", append(edit, func(c *rtc.Config) { c.UseNet(ca) })...).join()
	b = start(t, h, "b", append(edit, func(c *rtc.Config) { c.UseNet(cb) })...).join()
	linked(t, a, b)
	return h, a, b, ca, cb
}

// stream sends numbered messages at a steady pace until stop is called, which returns their number.
func stream(t *testing.T, p *rtc.Peer) (stop func() int) {
	done := make(chan struct{})
	count := make(chan int)
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-tick.C:
				if err := p.Send([]byte(message(n, 500)), wire.LaneOrdered); err != nil {
					t.Errorf("send during the cut: %v", err)
				}
			case <-done:
				count <- n
				return
			}
		}
	}()
	return sync.OnceValue(func() int { close(done); return <-count })
}

// The path is cut until ICE has noticed, or several restarts have failed; an ICE restart repairs the link without a loss and
// without an event.
func TestRecovery(t *testing.T) {
	t.Parallel()
	for _, muxed := range []bool{false, true} {
		for _, restarts := range []int{1, 5} { // the first while the path is cut, or as many in vain, while the path is cut
			t.Run(fmt.Sprintf("mux %t restarts %d", muxed, restarts), func(t *testing.T) {
				t.Parallel()
				h, a, b, ca, cb := cables(t, func(c *rtc.Config) {
					if muxed {
						c.UDPPort = rtc.AnyUDPPort
					}
				})
				stopA, stopB := stream(t, a.peer("b")), stream(t, b.peer("a"))
				defer stopA()
				defer stopB()
				testutil.Eventually(t, "a first message", func() bool { return len(b.received("a")) > 0 })
				ca.cut.Store(true)
				cb.cut.Store(true)
				testutil.Eventually(t, "the interruption", func() bool {
					return a.Recovering("b") && b.Recovering("a") && h.count(signal.Offer, "b", "a") > restarts
				})
				ca.cut.Store(false)
				cb.cut.Store(false)
				offers := h.count(signal.Offer, "b", "a")
				before := len(b.received("a"))
				testutil.Eventually(t, "messages after the cut", func() bool {
					return len(b.received("a")) > before && offers > 0
				})
				na, nb := stopA(), stopB()
				testutil.Eventually(t, "all messages", func() bool {
					return len(b.received("a")) == na && len(a.received("b")) == nb
				})
				for i, m := range b.received("a") {
					if m != message(i, 500) {
						t.Fatalf("message %d is %.20s", i, m)
					}
				}
				if ha, hb := a.history(), b.history(); ha != "[+b]" || hb != "[+a]" {
					t.Errorf("history %s and %s", ha, hb)
				}
				if n := h.count(signal.Offer, "b", "a"); n < 2 {
					t.Errorf("%d offers, so there was no ICE restart", n)
				}
				if n := h.count(signal.Offer, "a", "b"); n != 0 {
					t.Errorf("%d offers by the answerer", n)
				}
			})
		}
	}
}

// While signaling is down too, the restart waits for it.
func TestRecoveryWaitsForSignaling(t *testing.T) {
	t.Parallel()
	h, a, b, ca, cb := cables(t)
	h.leave("a")
	h.leave("b")
	ca.cut.Store(true)
	cb.cut.Store(true)
	send(t, a.peer("b"), `{"type":"t"}`)
	testutil.Eventually(t, "ICE gives up", func() bool { return a.ICE("b") == "failed" && b.ICE("a") == "failed" })
	ca.cut.Store(false)
	cb.cut.Store(false)
	if len(b.received("a")) != 0 {
		t.Fatal("the cut did not work")
	}
	a.join()
	b.join()
	testutil.Eventually(t, "the message", func() bool { return len(b.received("a")) == 1 })
	if ha, hb := a.history(), b.history(); ha != "[+b]" || hb != "[+a]" {
		t.Errorf("history %s and %s", ha, hb)
	}
}

// The answer to a restart is lost with the signaling connection.
func TestRecoveryLosesAnswer(t *testing.T) {
	t.Parallel()
	h, a, b, ca, cb := cables(t)
	var lost atomic.Bool
	h.setFilter(func(m signal.Message) []signal.Message {
		if m.Type == signal.Answer && lost.CompareAndSwap(false, true) {
			return nil
		}
		return []signal.Message{m}
	})
	ca.cut.Store(true)
	cb.cut.Store(true)
	send(t, a.peer("b"), `{"type":"t"}`)
	testutil.Eventually(t, "an answer", lost.Load)
	ca.cut.Store(false)
	cb.cut.Store(false)
	testutil.Eventually(t, "the message", func() bool { return len(b.received("a")) == 1 })
	if ha, hb := a.history(), b.history(); ha != "[+b]" || hb != "[+a]" {
		t.Errorf("history %s and %s", ha, hb)
	}
}

// A cut for good ends in one event on each side, within the bound; when the path is back, so is the link.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	_, a, b, ca, cb := cables(t, func(c *rtc.Config) {
		c.RecoveryTimeout = 2 * time.Second
		c.ConnectTimeout = time.Second
	})
	ca.cut.Store(true)
	cb.cut.Store(true)
	testutil.Eventually(t, "the end", func() bool { return a.history() == "[+b -b]" && b.history() == "[+a -a]" })
	gaveUp := 0
	for _, x := range []*agent{a, b} {
		switch r := get(x.recorder, func() []error { return x.reasons })[0]; {
		case errors.Is(r, rtc.ErrUnreachable) && strings.Contains(r.Error(), ": ICE is "):
			gaveUp++
		case !errors.Is(r, rtc.ErrReplaced): // the other one gave up first, and has made a new offer already
			t.Errorf("%s: reason %v", x.id, r)
		}
	}
	if gaveUp == 0 {
		t.Error("neither gave up")
	}
	ca.cut.Store(false)
	cb.cut.Store(false)
	linked(t, a, b)
}

// The far end was replaced while the path was cut: it takes the restart for a first offer.
func TestRecoveryMeetsNewProcess(t *testing.T) {
	t.Parallel()
	h, _, b, ca, cb := cables(t) // b has offered
	ca.cut.Store(true)
	cb.cut.Store(true)
	h.leave("a")
	a2 := start(t, h, "a", func(c *rtc.Config) { c.UseNet(newCable(t)) })
	h.mu.Lock()
	h.members["a"] = a2.Node // registered, but too late to be told of b
	h.mu.Unlock()
	a2.Registered("a", signal.PeersPayload{})
	testutil.Eventually(t, "the end of the old link", func() bool { return b.peer("a") == nil })
	cb.cut.Store(false)
	linked(t, a2, b)
	if got := b.history(); got != "[+a -a +a]" {
		t.Errorf("history %s", got)
	}
}

// While signaling is silent no restart is begun: the path is used again as soon as it is back, without signaling.
func TestRecoveryWithoutSignaling(t *testing.T) {
	t.Parallel()
	h, a, b, ca, cb := cables(t, func(c *rtc.Config) { c.ICEFailed(time.Minute) })
	h.setMute("a", true)
	h.setMute("b", true)
	ca.cut.Store(true)
	cb.cut.Store(true)
	testutil.Eventually(t, "the interruption", func() bool { return a.Recovering("b") && b.Recovering("a") })
	send(t, a.peer("b"), `{"type":"t"}`)
	time.Sleep(time.Second) // in which there was a restart
	ca.cut.Store(false)
	cb.cut.Store(false)
	testutil.Eventually(t, "the message", func() bool { return len(b.received("a")) == 1 })
	if n := h.count(signal.Offer, "b", "a"); n != 1 {
		t.Errorf("%d offers", n)
	}
}

// The answerer was suspended: the other end has given the link up, and knows that signaling does not know the answerer.
func TestAnswererReturns(t *testing.T) {
	t.Parallel()
	for _, names := range [][2]string{{"a", "b"}, {"b", "a"}} {
		t.Run(names[0], func(t *testing.T) {
			t.Parallel()
			h := newHub(t)
			nets := [2]*cable{newCable(t), newCable(t)}
			answerer := start(t, h, names[0], func(c *rtc.Config) {
				c.UseNet(nets[0])
				c.RecoveryTimeout = time.Hour
			}).join()
			offerer := start(t, h, names[1], func(c *rtc.Config) {
				c.UseNet(nets[1])
				c.RecoveryTimeout = 500 * time.Millisecond
				c.Checking(0)
			}).join()
			linked(t, answerer, offerer)
			h.leave(answerer.id)
			nets[0].cut.Store(true)
			nets[1].cut.Store(true)
			testutil.Eventually(t, "the end at the offerer", func() bool {
				return offerer.peer(answerer.id) == nil && !offerer.Known(answerer.id)
			})
			nets[0].cut.Store(false)
			nets[1].cut.Store(false)
			answerer.join()
			testutil.Eventually(t, "a new link", func() bool {
				return answerer.history() == fmt.Sprintf("[+%[1]s -%[1]s +%[1]s]", offerer.id) && offerer.peer(answerer.id) != nil
			})
		})
	}
}

// There was a sign of life just before the bound: the link has time to find its path.
func TestPathBackAtTheBound(t *testing.T) {
	t.Parallel()
	h, a, b, ca, cb := cables(t, func(c *rtc.Config) {
		c.RecoveryTimeout = 2 * time.Second
		c.Checking(20 * time.Second)
	})
	h.leave("a")
	h.leave("b")
	ca.cut.Store(true)
	cb.cut.Store(true)
	testutil.Eventually(t, "the interruption", func() bool { return a.Recovering("b") && b.Recovering("a") })
	a.join()
	b.join()
	time.Sleep(2500 * time.Millisecond) // beyond the bound
	ca.cut.Store(false)
	cb.cut.Store(false)
	send(t, a.peer("b"), `{"type":"t"}`)
	testutil.Eventually(t, "the message", func() bool { return len(b.received("a")) == 1 })
	if ha, hb := a.history(), b.history(); ha != "[+b]" || hb != "[+a]" {
		t.Errorf("history %s and %s", ha, hb)
	}
}

// roaming is a network whose addresses change.
type roaming struct {
	*cable
	away atomic.Bool
}

func (r *roaming) Interfaces() ([]*transport.Interface, error) {
	if r.away.Load() {
		return nil, nil
	}
	return r.Net.Interfaces()
}

// A link whose address is gone is repaired before ICE notices, and again when there is a new address.
func TestNetworkChanged(t *testing.T) {
	t.Parallel()
	for _, offers := range []bool{true, false} {
		t.Run(fmt.Sprintf("the offerer %t", offers), func(t *testing.T) {
			t.Parallel()
			slow := func(c *rtc.Config) { c.ICEDisconnected(time.Minute) }
			h, net := newHub(t), &roaming{cable: newCable(t)}
			a := start(t, h, "a", slow, func(c *rtc.Config) { c.UseNet(net) })
			b := start(t, h, "b", slow)
			if offers {
				b.join()
				a.join()
			} else {
				a.join()
				b.join()
			}
			linked(t, a, b)
			a.NetworkChanged()
			if a.Recovering("b") {
				t.Error("interrupted although its address is there")
			}
			net.away.Store(true)
			net.cut.Store(true)
			a.NetworkChanged()
			if !a.Recovering("b") {
				t.Error("not interrupted although its address is gone")
			}
			testutil.Eventually(t, "the interruption at the other end", func() bool { return b.Recovering("a") })
			net.away.Store(false)
			net.cut.Store(false)
			a.NetworkChanged()
			testutil.Eventually(t, "the repair", func() bool { return !a.Recovering("b") && !b.Recovering("a") })
			send(t, a.peer("b"), `{"type":"t"}`)
			testutil.Eventually(t, "a message", func() bool { return len(b.received("a")) == 1 })
			if ha, hb := a.history(), b.history(); ha != "[+b]" || hb != "[+a]" {
				t.Errorf("history %s and %s", ha, hb)
			}
		})
	}
}

// crowded is a cable of a host on which another interface has come, or the last one has gone, at each look.
type crowded struct {
	*cable
	looks atomic.Int64
}

func (c *crowded) Interfaces() ([]*transport.Interface, error) {
	all, err := c.Net.Interfaces()
	if n := c.looks.Add(1); n%2 == 0 {
		i := transport.NewInterface(net.Interface{Index: 1000, Name: "veth", MTU: 1500, Flags: net.FlagUp})
		i.AddAddress(&net.IPNet{IP: net.IPv4(198, 51, 100, byte(n/2)), Mask: net.CIDRMask(24, 32)})
		all = append(all, i)
	}
	return all, err
}

// A link is repaired although interfaces come and go all the time on this host, also where the exchange of descriptions takes longer
// than that.
func TestRepairWhileInterfacesChange(t *testing.T) {
	t.Parallel()
	for name, counts := range map[string]bool{"of no use": false, "that may be used": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, busy, cb := newHub(t), &crowded{cable: newCable(t)}, newCable(t)
			b := start(t, h, "b", func(c *rtc.Config) { c.UseNet(cb) }).join()
			a := start(t, h, "a", func(c *rtc.Config) {
				c.UseNet(busy)
				if counts {
					c.AllNetworks()
				}
			}).join()
			linked(t, a, b)
			busy.cut.Store(true)
			cb.cut.Store(true)
			testutil.Eventually(t, "the interruption", func() bool { return a.Recovering("b") && b.Recovering("a") })
			h.setFilter(func(m signal.Message) []signal.Message {
				if m.PeerID == "b" {
					time.AfterFunc(150*time.Millisecond, func() { h.deliver(m) })
					return nil
				}
				return []signal.Message{m}
			})
			stop := make(chan struct{})
			var changing sync.WaitGroup
			changing.Go(func() {
				for {
					select {
					case <-time.After(50 * time.Millisecond):
						a.NetworkChanged()
					case <-stop:
						return
					}
				}
			})
			time.Sleep(time.Second) // of changes while there is no path
			busy.cut.Store(false)
			cb.cut.Store(false)
			testutil.Eventually(t, "the repair", func() bool { return !a.Recovering("b") && !b.Recovering("a") })
			close(stop)
			changing.Wait()
			if ha, hb := a.history(), b.history(); ha != "[+b]" || hb != "[+a]" {
				t.Errorf("history %s and %s", ha, hb)
			}
		})
	}
}

// Descriptions of earlier restarts, which signaling shows again, interrupt no link, though nobody has signed them.
func TestOldRestarts(t *testing.T) {
	t.Parallel()
	h, a, b, ca, cb := cables(t)
	var mu sync.Mutex
	var recorded []signal.Message
	h.setFilter(func(m signal.Message) []signal.Message {
		mu.Lock()
		defer mu.Unlock()
		recorded = append(recorded, m)
		return []signal.Message{m}
	})
	stopA, stopB := stream(t, a.peer("b")), stream(t, b.peer("a"))
	defer stopA()
	defer stopB()
	for range 2 {
		before := h.count(signal.Offer, "b", "a")
		ca.cut.Store(true)
		cb.cut.Store(true)
		testutil.Eventually(t, "a restart", func() bool { return h.count(signal.Offer, "b", "a") > before && a.Recovering("b") && b.Recovering("a") })
		ca.cut.Store(false)
		cb.cut.Store(false)
		testutil.Eventually(t, "the repair", func() bool { return !a.Recovering("b") && !b.Recovering("a") })
	}
	h.setFilter(nil)
	mu.Lock()
	defer mu.Unlock()
	answers := h.count(signal.Answer, "a", "b")
	for _, m := range recorded {
		if m.Type == signal.Offer {
			h.deliver(m)
		}
	}
	testutil.Eventually(t, "the answer to the last of them", func() bool { return h.count(signal.Answer, "a", "b") > answers })
	if a.Recovering("b") || b.Recovering("a") {
		t.Error("the link was interrupted")
	}
	sentA, sentB := stopA(), stopB()
	testutil.Eventually(t, "all messages", func() bool { return len(b.received("a")) >= sentA && len(a.received("b")) >= sentB })
	if ha, hb := a.history(), b.history(); ha != "[+b]" || hb != "[+a]" {
		t.Errorf("history %s and %s", ha, hb)
	}
}
