package mesh

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// verifiedGuards are those under which a link between two agents with keys is verified.
var verifiedGuards = slices.DeleteFunc(slices.Clone(guards), func(g guard) bool {
	return !slices.Contains([]string{"off", "known, first contact", "member"}, g.name)
})

// A chat is two agents with a verified link, who never stop talking to each other.
type chat struct {
	agents [2]*agent
	came   [2]testutil.Record[string] // at each of them
	ctx    context.Context
	stop   context.CancelFunc
	work   sync.WaitGroup
	sent   [2]int // by each of them; valid after work
}

// startChat starts two agents who are under a guard.
func startChat(t *testing.T, m *mallory, k *keyring, g guard) *chat {
	t.Helper()
	c := &chat{}
	c.ctx, c.stop = context.WithCancel(t.Context())
	names := [2]string{"alice", "bob"}
	for i, name := range names {
		other := names[1-i]
		c.agents[i] = (&stage{url: m.url}).startAs(t, InProcess, name, g.who(k, name, name, other, other), func(cfg *Config) {
			cfg.Network.RecoveryTimeout = time.Hour // all attacks may take longer than a minute
			cfg.Network.NoLocal = true              // signaling means nothing to a link that has moved
			cfg.Handlers = map[string]Handler{"count": func(_ context.Context, msg *Message) (any, error) {
				c.came[i].Add(fmt.Sprintf("%s", msg.Payload))
				return nil, nil
			}}
		})
	}
	for i, a := range c.agents {
		if err := a.WaitPeer(bounded(t), names[1-i]); err != nil {
			t.Fatal(err)
		}
		if key := a.Peers()[0].Key; key != k.public(names[1-i]).String() {
			t.Fatalf("%s has the peer %+v", a.id, a.Peers()[0])
		}
	}
	for i := range c.agents {
		c.work.Go(func() { c.talk(t, i) })
	}
	t.Cleanup(c.end)
	return c
}

// talk sends numbers.
func (c *chat) talk(t *testing.T, i int) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := c.agents[i].Send(c.ctx, c.agents[1-i].id, Message{Type: "count", Payload: c.sent[i]}); err != nil {
			if c.ctx.Err() == nil {
				t.Errorf("%s: message %d: %v", c.agents[i].id, c.sent[i], err)
			}
			return
		}
		c.sent[i]++
		select {
		case <-tick.C:
		case <-c.ctx.Done():
			return
		}
	}
}

func (c *chat) end() {
	c.stop()
	c.work.Wait()
}

// goesOn checks that requests pass both ways.
func (c *chat) goesOn(t *testing.T) {
	t.Helper()
	works(t, c.agents[0], c.agents[1])
	works(t, c.agents[1], c.agents[0])
}

// check ends the chat and checks that all that was said has arrived in order, over one link.
func (c *chat) check(t *testing.T) {
	t.Helper()
	c.goesOn(t)
	c.end()
	for i, a := range c.agents {
		other := c.agents[1-i]
		all := c.came[i].Wait(t, a.id+" has it all", func(all []string) bool { return len(all) >= c.sent[1-i] })
		for n, text := range all {
			if text != fmt.Sprint(n) {
				t.Fatalf("%s: message %d is %s", a.id, n, text)
			}
		}
		if events := a.eventsOf(other.id, 0); len(events) != 1 || !events[0].Connected {
			t.Errorf("%s has had the events %+v", a.id, events)
		}
	}
}

// A likeness is what mallory knows of a victim's peer, in whose name she speaks.
type likeness struct {
	m            *mallory
	victim, peer string
	own, other   string // the sessions of the peer and of the victim
	instance     string // of the peer
	sdp          string // its first
}

func (m *mallory) likeness(t *testing.T, victim, peer string) *likeness {
	t.Helper()
	l := &likeness{m: m, victim: victim, peer: peer}
	for _, typ := range []string{signal.Offer, signal.Answer} {
		// The first ones are of the link. Later ones may be about an offer of mallory's.
		if all := m.heard(typ, peer, victim); len(all) > 0 && l.own == "" {
			d := description(t, all[0])
			l.own, l.instance, l.sdp = d.Session, d.Instance, d.SDP
		}
		if all := m.heard(typ, victim, peer); len(all) > 0 && l.other == "" {
			l.other = description(t, all[0]).Session
		}
	}
	if l.own == "" || l.other == "" {
		t.Fatalf("what mallory knows of %s: %+v", peer, l)
	}
	return l
}

// sdps are descriptions that a victim must not apply.
func (l *likeness) sdps(t *testing.T) map[string]string {
	hers := l.m.sdp(t)
	replaced := func(attribute string) string {
		find := func(sdp string) string {
			for _, line := range strings.Split(sdp, "\r\n") {
				if strings.HasPrefix(line, "a="+attribute) {
					return line
				}
			}
			t.Fatalf("no %s in %q", attribute, sdp)
			return ""
		}
		return strings.ReplaceAll(l.sdp, find(l.sdp), find(hers))
	}
	crowded := func(n int) string {
		sdp := l.sdp
		for i := range n {
			sdp += fmt.Sprintf("a=candidate:%d 1 udp 2130706431 127.0.0.1 %d typ host\r\n", i, 1+i)
		}
		return sdp
	}
	return map[string]string{
		"hers": hers, "nothing": "v=0\r\n", "600 candidates": crowded(600), "3500 candidates": crowded(3500),
		"another password": replaced("ice-pwd:"), "another user": replaced("ice-ufrag:"), "another fingerprint": replaced("fingerprint:sha-256 "),
	}
}

// sdp returns an offer of mallory's own.
func (m *mallory) sdp(t *testing.T) string {
	t.Helper()
	pc, err := m.api.NewPeerConnection(webrtc.Configuration{Certificates: []webrtc.Certificate{m.cert}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pc.GracefulClose() }()
	if _, err := pc.CreateDataChannel("mesh", nil); err != nil {
		t.Fatal(err)
	}
	offer, err := pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	return offer.SDP
}

// numbers are those that the forgeries have.
var numbers = []int{0, 1, 2, 1 << 40}

// describe sends the victim offers and answers with each of the SDPs, as of the present session, another one and
// none. sigs are the signatures to try.
func (l *likeness) describe(t *testing.T, sdps map[string]string, sigs ...string) {
	t.Helper()
	caps := []string{"jsonl", "restart", "drain"}
	for _, sdp := range sdps {
		for _, number := range numbers {
			for _, sig := range append(sigs, "", strings.Repeat("A", 86)+"==") {
				l.m.say(signal.Offer, l.peer, l.victim, signal.Description{SDP: sdp, Caps: caps, Session: l.own, Instance: l.instance, Number: number, Sig: sig})
				l.m.say(signal.Answer, l.peer, l.victim, signal.Description{
					SDP: sdp, Caps: caps, Session: l.own, Instance: l.instance, Answers: l.other, Number: number, Sig: sig,
				})
			}
		}
		l.m.settled(t, l.victim) // more would not be queued
		for _, d := range []signal.Description{
			{Session: "a new one", Instance: l.instance, Caps: caps},
			{Session: "a new one", Instance: "a new one", Caps: caps},
			{Session: "a new one", Instance: l.instance},
			{Session: l.own, Instance: l.instance},
			{Caps: caps},
			{},
		} {
			d.SDP = sdp
			l.m.say(signal.Offer, l.peer, l.victim, d)
			d.Answers = l.other
			l.m.say(signal.Answer, l.peer, l.victim, d)
		}
		l.m.settled(t, l.victim)
	}
}

// bother sends the victim all else that signaling has.
func (l *likeness) bother(t *testing.T) {
	t.Helper()
	for i := range 500 {
		for _, session := range []string{l.own, "another", ""} {
			l.m.say(signal.Candidate, l.peer, l.victim, signal.ICECandidate{
				Candidate: fmt.Sprintf("candidate:%d 1 udp 2130706431 127.0.0.1 %d typ host", i, 1+i), Session: session, SDPMid: new(string),
			})
		}
		if i%50 == 0 {
			l.m.settled(t, l.victim)
		}
	}
	for _, code := range []string{signal.CodePeerUnavailable, signal.CodeBusy, signal.CodeUnauthorized, signal.CodeInUse} {
		l.m.say(signal.ErrorType, "registry", l.victim, signal.ErrorPayload{Code: code, TargetID: l.peer})
	}
	l.m.list(l.victim)
	l.m.list(l.victim, l.peer)
	l.m.settled(t, l.victim)
}

// replay sends the victim again all that its peer has ever said.
func (m *mallory) replay(t *testing.T, victim, peer string) {
	t.Helper()
	for range 3 {
		for _, typ := range []string{signal.Answer, signal.Offer, signal.Candidate} {
			for _, msg := range m.heard(typ, peer, victim) {
				m.pass(msg)
			}
		}
		m.settled(t, victim)
	}
}

// Whatever signaling says, a verified link goes on, and so does what is said over it.
func TestVerifiedLinkUnderAttack(t *testing.T) {
	testutil.SkipUnlessFull(t, "verified links under attack")
	for _, g := range verifiedGuards {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			m, k := newMallory(t), newKeyring(t)
			c := startChat(t, m, k, g)
			for i, a := range c.agents {
				l := m.likeness(t, a.id, c.agents[1-i].id)
				m.replay(t, a.id, l.peer)
				c.goesOn(t)
				l.describe(t, l.sdps(t))
				c.goesOn(t)
				l.bother(t)
				c.goesOn(t)
			}
			for i, a := range c.agents {
				m.hangUp(a.id) // it comes back, is on a list again, and gets another one
				testutil.Eventually(t, a.id+" is back", func() bool { return m.there(a.id) })
				m.settled(t, a.id)
				m.replay(t, a.id, c.agents[1-i].id)
			}
			c.check(t)
		})
	}
}

// there reports whether a victim is registered.
func (m *mallory) there(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.listed, id)
}

// A new link in the place of a verified one must be as verified: mallory offers one, and shows all that she has.
func TestVerifiedLinkIsNotReplaced(t *testing.T) {
	for _, g := range verifiedGuards {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			m, k := newMallory(t), newKeyring(t)
			c := startChat(t, m, k, g)
			own := ownKey(t, k, nil)
			for i, a := range c.agents {
				peer := c.agents[1-i].id
				// Three of them, and another one below: a peer's further offers are taken up slowly.
				for name, how := range map[string]trick{
					"a key of her own": own,
					"no identity":      {show: func(to *leg) string { return to.shows(nil) }},
					"a base peer":      {noCaps: true, noSession: true},
				} {
					before := a.refusals()
					how.alone = true
					m.beside(a.id, peer, how)
					testutil.Eventually(t, a.id+" refuses "+name, func() bool { return a.refusals() > before || len(a.eventsOf(peer, 0)) > 1 })
					c.goesOn(t)
				}
				m.beside(a.id, peer, trick{alone: true, show: func(*leg) string { return `["hallo"]` }})
				a.log.Wait(t, "no new link to the peer; keeping the present one")
				c.goesOn(t)
				if all := a.reports.All(); len(all) == 0 || !isIdentity(all[0]) {
					t.Errorf("%s says %v", a.id, all)
				}
			}
			c.check(t)
		})
	}
}

// beside offers a victim a link in the name of a peer, and takes the answer.
func (m *mallory) beside(victim, as string, how trick) {
	p := &tap{m: m, how: how, legs: make(map[string]*leg)}
	l := p.newLeg(victim, as, true)
	p.legs[victim] = l
	m.mu.Lock()
	old := m.taps[[2]string{victim, as}]
	m.taps[[2]string{victim, as}] = p
	m.mu.Unlock()
	if old != nil {
		old.close()
	}
	hers := m.middle(how)
	m.turn(func(msg signal.Message) {
		var about struct{ Session, Answers string }
		if err := json.Unmarshal(msg.Payload, &about); err != nil {
			m.t.Error(err)
		}
		if msg.PeerID == victim && msg.TargetID == as &&
			(msg.Type == signal.Answer && about.Answers == l.own || msg.Type == signal.Candidate && about.Session == l.theirs) {
			hers(msg)
			return
		}
		m.pass(msg)
	})
	l.offer()
}

// A path is the way of the packets of two victims, since mallory tells each that the other is there.
type path struct {
	ids   [2]string
	socks [2]*net.UDPConn // in the place of each of them
	real  [2]atomic.Pointer[netip.AddrPort]
	cut   atomic.Bool
	work  sync.WaitGroup
}

func newPath(t *testing.T, ids ...string) *path {
	p := &path{ids: [2]string(ids)}
	for i := range p.socks {
		sock, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		p.socks[i] = sock
	}
	for i := range p.socks {
		p.work.Go(func() { p.carry(i) })
	}
	t.Cleanup(func() {
		for _, sock := range p.socks {
			_ = sock.Close()
		}
		p.work.Wait()
	})
	return p
}

// carry passes on what comes for one of the two.
func (p *path) carry(to int) {
	b := make([]byte, 64<<10)
	for {
		n, from, err := p.socks[to].ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		source, target := p.real[1-to].Load(), p.real[to].Load()
		if source == nil || target == nil || *source != netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) || p.cut.Load() {
			continue
		}
		_, _ = p.socks[1-to].WriteToUDPAddrPort(b[:n], *target)
	}
}

// lead returns a way to relay that has the victims take the path, as long as no description says otherwise.
func (p *path) lead(m *mallory) func(signal.Message) {
	return func(msg signal.Message) {
		if msg.Type == signal.Candidate {
			var c signal.ICECandidate
			if err := json.Unmarshal(msg.Payload, &c); err != nil {
				m.t.Error(err)
			}
			words := strings.Fields(c.Candidate)
			if len(words) < 6 || words[4] != "127.0.0.1" {
				return
			}
			i := slices.Index(p.ids[:], msg.PeerID)
			addr := netip.MustParseAddrPort(words[4] + ":" + words[5])
			p.real[i].Store(&addr)
			words[5] = fmt.Sprint(p.socks[i].LocalAddr().(*net.UDPAddr).Port)
			c.Candidate = strings.Join(words, " ")
			msg.Payload, _ = json.Marshal(c)
		}
		m.pass(msg)
	}
}

// While a verified link is interrupted, and its restart is under way, mallory cannot end it either.
func TestOutageUnderAttack(t *testing.T) {
	testutil.SkipUnlessFull(t, "verified links under attack")
	for _, g := range verifiedGuards {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			m, k := newMallory(t), newKeyring(t)
			p := newPath(t, "alice", "bob")
			m.turn(p.lead(m))
			c := startChat(t, m, k, g)
			c.goesOn(t)

			m.turn(nothing)
			p.cut.Store(true)
			offerer, answerer := "bob", "alice" // who comes later offers
			var offer signal.Message
			testutil.Eventually(t, "the offer to restart", func() bool {
				offers := m.heard(signal.Offer, offerer, answerer)
				offer = offers[len(offers)-1]
				return len(offers) > 1 && description(t, offer).Number == 1
			})
			genuine := description(t, offer)
			l := m.likeness(t, answerer, offerer)
			l.describe(t, l.sdps(t), genuine.Sig)
			l.describe(t, map[string]string{"the genuine one": genuine.SDP}) // without its signature
			again := genuine
			again.Number = 2
			m.say(signal.Offer, offerer, answerer, again)
			m.settled(t, answerer)
			for _, answer := range m.heard(signal.Answer, answerer, offerer) {
				if d := description(t, answer); d.Number > 0 {
					t.Errorf("an answer to a forged restart: %+v", d)
				}
			}
			// The offer is pending: answers count now.
			l = m.likeness(t, offerer, answerer)
			l.describe(t, l.sdps(t), genuine.Sig)
			m.replay(t, offerer, answerer)
			m.replay(t, answerer, offerer) // the genuine one is among them, and its answer does not arrive

			m.turn(m.pass)
			p.cut.Store(false)
			c.goesOn(t)
			m.replay(t, offerer, answerer)
			m.replay(t, answerer, offerer)
			c.check(t)
		})
	}
}
