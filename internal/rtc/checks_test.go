//go:build !js

package rtc_test

import (
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/stun/v4"
	"github.com/pion/transport/v5"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// Paths to peers that are known not to be base peers are checked less often. The answerer knows the kind of peer from the
// offer, the offerer from the peer_list.
func TestSteadyPeers(t *testing.T) {
	t.Parallel()
	const often, steady = 200 * time.Millisecond, 300 * time.Millisecond
	slow := func(c *rtc.Config) { c.ICEKeepalive(often); c.SteadyKeepalive(steady) }
	for _, c := range []struct {
		name string
		base []string // as the peer_list says
		want time.Duration
	}{
		{"the list does not say", nil, often},
		{"all are extended", []string{}, steady},
		{"another one is not", []string{"other"}, steady},
		{"perhaps not", []string{"b"}, often},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHub(t)
			h.base = c.base
			b := start(t, h, "b", slow).join()
			a := start(t, h, "a", slow).join()
			linked(t, a, b)
			if got := a.Keepalive("b"); got != c.want {
				t.Errorf("the offerer checks every %v, want %v", got, c.want)
			}
			if got := b.Keepalive("a"); got != steady {
				t.Errorf("the answerer checks every %v, want %v", got, steady)
			}
		})
	}
	t.Run("a base peer's offer", func(t *testing.T) {
		h := newHub(t)
		a := start(t, h, "a", slow).join()
		h.join("b", startBase(t, h, "b"))
		testutil.Eventually(t, "a link", func() bool { return a.peer("b") != nil })
		if got := a.Keepalive("b"); got != often {
			t.Errorf("checks every %v, want %v", got, often)
		}
	})
}

// A path without a relay is used before it is nominated, if both ends do that, and at the first attempt only.
func TestPathBeforeNomination(t *testing.T) {
	t.Parallel()
	nominates := func(b []byte) bool {
		m := stun.Message{Raw: b}
		return isRequest(b) && m.Decode() == nil && m.Contains(stun.AttrUseCandidate)
	}
	for _, c := range []struct {
		name  string
		other bool // one end that does not know how
	}{{"both do", false}, {"one does", true}} {
		t.Run(c.name, func(t *testing.T) {
			h := newHub(t)
			var nominations atomic.Int64
			cable := newCable(t)
			cable.drop = func(b []byte, _, _ net.Addr) bool {
				if nominates(b) {
					nominations.Add(1)
					return true
				}
				return false
			}
			if c.other {
				h.setFilter(tampering(t, func(_ string, d *signal.Description) { d.SCTPInit = "" }))
			}
			b := start(t, h, "b", func(c *rtc.Config) { c.UseNet(cable) }).join()
			a := start(t, h, "a", func(c *rtc.Config) { c.UseNet(cable) }).join()
			if c.other {
				testutil.Eventually(t, "nominations", func() bool { return nominations.Load() > 3 })
				if a.peer("b") != nil || b.peer("a") != nil {
					t.Error("a link without a nomination that has arrived")
				}
				return
			}
			linked(t, a, b)
		})
	}
}

// The answerer's guess is wrong if nothing comes back on the path of the first check. It takes another one, in the same attempt.
func TestPathInOneDirection(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	mine, theirs := newCable(t), newCable(t)
	var guessed atomic.Bool
	mine.drop = func(_ []byte, from, to net.Addr) bool { return !guessed.Load() && !(isFirst(from) && isFirst(to)) }
	theirs.drop = func(_ []byte, from, to net.Addr) bool { return isFirst(from) || isFirst(to) }
	b := start(t, h, "b", func(c *rtc.Config) { c.UseNet(&twoAddresses{theirs}) }).join()
	a := start(t, h, "a", func(c *rtc.Config) { c.UseNet(&twoAddresses{mine}) }).join()
	testutil.Eventually(t, "a guess", func() bool { return b.PathTo("a") == "127.0.0.1 127.0.0.1" })
	guessed.Store(true)
	linked(t, a, b)
	if n := h.count(signal.Offer, "a", "b"); n != 1 {
		t.Errorf("%d offers, want 1", n)
	}
}

// The guess is of higher priority than the only path that carries packets both ways, which is by the offerer's relay: as where a
// firewall lets packets out and not in. The answerer follows the nomination all the same.
func TestGuessGivesWayToRelay(t *testing.T) {
	t.Parallel()
	at := listenDatagrams(t, "127.0.0.1:0")
	startTURN(t, at, nil)
	h := newHub(t)
	mine, theirs := &portsOf{cable: newCable(t), ports: map[int]bool{}}, newCable(t)
	theirs.drop = func(_ []byte, _, to net.Addr) bool { return mine.has(to) }
	patient := func(c *rtc.Config) {
		c.ICEFailed(time.Hour)
		c.ConnectTimeout = time.Hour
	}
	b := start(t, h, "b", patient, func(c *rtc.Config) { c.UseNet(theirs) }).join()
	a := start(t, h, "a", patient, func(c *rtc.Config) {
		c.UseNet(mine)
		c.ICEServers = relays("turn:"+at.LocalAddr().String(), "a")
	}).join()
	linked(t, a, b)
}

// portsOf is a cable that knows the ports of its sockets.
type portsOf struct {
	*cable
	mu    sync.Mutex
	ports map[int]bool
}

func (p *portsOf) ListenUDP(network string, addr *net.UDPAddr) (transport.UDPConn, error) {
	c, err := p.cable.ListenUDP(network, addr)
	if err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.ports[c.LocalAddr().(*net.UDPAddr).Port] = true
	}
	return c, err
}

func (p *portsOf) has(to net.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ports[to.(*net.UDPAddr).Port]
}

// An answerer that is to be DTLS's server does not guess: it would send its certificate to an address that nothing has confirmed.
func TestNoGuessAsServer(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	theirs := newCable(t)
	theirs.drop = func([]byte, net.Addr, net.Addr) bool { return true }
	h.setFilter(tampering(t, func(typ string, d *signal.Description) {
		if typ == signal.Offer {
			d.SDP = strings.ReplaceAll(d.SDP, "a=setup:actpass", "a=setup:active")
		}
	}))
	var checked atomic.Int64
	mine := newCable(t)
	mine.drop = func(b []byte, _, _ net.Addr) bool {
		if isRequest(b) {
			checked.Add(1)
		}
		return false
	}
	b := start(t, h, "b", func(c *rtc.Config) { c.UseNet(theirs) }).join()
	start(t, h, "a", func(c *rtc.Config) { c.UseNet(mine) }).join()
	testutil.Eventually(t, "checks", func() bool { return checked.Load() > 3 })
	if got := b.PathTo("a"); got != "" {
		t.Errorf("it has taken %s", got)
	}
}

// After a link that lasted, the next offer is a first attempt again.
func TestOfferAfterLastingLink(t *testing.T) {
	t.Parallel()
	_, a, b, ca, cb := cables(t, func(c *rtc.Config) { c.RecoveryTimeout = 1500 * time.Millisecond }) // a link lasts from 1 s on
	var inits testutil.Record[bool]
	a.h.setFilter(tampering(t, func(typ string, d *signal.Description) {
		if typ == signal.Offer && d.Number == 0 {
			inits.Add(d.SCTPInit != "")
		}
	}))
	ca.cut.Store(true)
	cb.cut.Store(true)
	testutil.Eventually(t, "the end", func() bool { return a.peer("b") == nil && b.peer("a") == nil })
	ca.cut.Store(false)
	cb.cut.Store(false)
	linked(t, a, b)
	if all := inits.All(); len(all) == 0 || !all[0] {
		t.Errorf("offers with an INIT: %v", all)
	}
}

// An outage of 9 s in the middle of SCTP's handshake, after which this end has given its own INIT up when the other end's COOKIE-ECHO
// arrives, leaves no association of pion's behind, which would stand still for good.
func TestOutageInHandshake(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.setFilter(tampering(t, func(_ string, d *signal.Description) { d.SCTPInit = "" }))
	const application, changeCipher = 23, 20 // types of DTLS records
	mine := newCable(t)
	var finished, first atomic.Int64
	mine.drop = func(b []byte, _, _ net.Addr) bool {
		now := time.Now().UnixMilli()
		switch {
		case len(b) == 0:
		case b[0] == changeCipher: // so that the other end's INITs begin later
			finished.CompareAndSwap(0, now)
			return now-finished.Load() < 1900
		case b[0] == application:
			first.CompareAndSwap(0, now)
			return now-first.Load() < 9300
		}
		return false
	}
	patient := func(c *rtc.Config) {
		c.ICEDisconnected(4 * time.Second)
		c.ICEFailed(time.Hour)
		c.ConnectTimeout = 14 * time.Second
	}
	b := start(t, h, "b", patient).join()
	a := start(t, h, "a", patient, func(c *rtc.Config) { c.UseNet(mine) }).join()
	linked(t, a, b)
	a.close(t)
	b.close(t)
	testutil.Eventually(t, "the end of its associations", func() bool {
		buf := make([]byte, 4<<20)
		return !strings.Contains(string(buf[:runtime.Stack(buf, true)]), "completeHandshake(")
	})
}

// Two ends that use different pairs have a link like any other: what arrives on the pair of the other end is a sign, too, that the
// path carries data, beyond the time after which it would be restarted.
func TestDifferentPairs(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	mine, theirs := newCable(t), newCable(t)
	var chosen [2]atomic.Bool // by the answerer, the only path of the offerer's packets until then, and the other way round
	mine.drop = func(_ []byte, from, to net.Addr) bool { return !chosen[0].Load() && !(isFirst(from) && isFirst(to)) }
	theirs.drop = func(b []byte, from, to net.Addr) bool { // without responses on it, the offerer does not choose the same
		return isFirst(from) != isFirst(to) || !chosen[1].Load() && isFirst(from) && stun.IsMessage(b) && !isRequest(b)
	}
	b := start(t, h, "b", func(c *rtc.Config) { c.UseNet(&twoAddresses{theirs}) }).join()
	a := start(t, h, "a", func(c *rtc.Config) { c.UseNet(&twoAddresses{mine}) }).join()
	for i, x := range []struct {
		who  *agent
		peer string
	}{{b, "a"}, {a, "b"}} {
		testutil.Eventually(t, "a path", func() bool { return x.who.PathTo(x.peer) != "" })
		chosen[i].Store(true)
	}
	linked(t, a, b)
	if got := [2]string{a.PathTo("b"), b.PathTo("a")}; got != [2]string{"127.0.0.2 127.0.0.2", "127.0.0.1 127.0.0.1"} {
		t.Fatalf("the paths are %q", got)
	}
	offers := h.count(signal.Offer, "a", "b")
	for begin, n := time.Now(), 0; time.Since(begin) < 4*time.Second; n++ {
		testutil.Eventually(t, "room", func() bool {
			return a.peer("b").Send([]byte(message(n, 16_000)), wire.LaneOrdered) == nil
		})
	}
	if n := h.count(signal.Offer, "a", "b"); n != offers {
		t.Errorf("%d restarts", n-offers)
	}
}

// twoAddresses is a cable with one host at either end, which has two addresses. Nothing passes from one to the other.
type twoAddresses struct{ *cable }

func (n *twoAddresses) Interfaces() ([]*transport.Interface, error) {
	lo := transport.NewInterface(net.Interface{Index: 1, MTU: 65536, Name: "lo", Flags: net.FlagUp | net.FlagLoopback})
	for _, ip := range []string{"127.0.0.1", "127.0.0.2"} {
		lo.AddAddress(&net.IPNet{IP: net.ParseIP(ip), Mask: net.CIDRMask(8, 32)})
	}
	return []*transport.Interface{lo}, nil
}

func isFirst(a net.Addr) bool { return a.(*net.UDPAddr).IP.Equal(net.IPv4(127, 0, 0, 1)) }

func isRequest(b []byte) bool {
	m := stun.Message{Raw: b}
	return stun.IsMessage(b) && m.Decode() == nil && m.Type == stun.BindingRequest
}
