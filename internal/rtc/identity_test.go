//go:build !js

package rtc_test

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// authority makes the keys and statements of one mesh.
type authority struct {
	t    *testing.T
	dir  string
	root ed25519.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	c := &authority{t: t, dir: t.TempDir()}
	path := c.path("root")
	_, err := identity.NewKeyFile(path)
	if err == nil {
		c.root, err = identity.ReadKey(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *authority) path(name string) string { return filepath.Join(c.dir, name) }

// key returns the public key of an agent, which is made if it has none.
func (c *authority) key(agent string) identity.PublicKey {
	c.t.Helper()
	path := c.path(agent + ".key")
	if _, err := os.Stat(path); err != nil {
		if _, err := identity.NewKeyFile(path); err != nil {
			c.t.Fatal(err)
		}
	}
	private, err := identity.ReadKey(path)
	if err != nil {
		c.t.Fatal(err)
	}
	return identity.Public(private)
}

// admit writes a statement about an agent.
func (c *authority) admit(agent string, until time.Time) {
	c.t.Helper()
	raw, err := json.Marshal(identity.NewStatement(c.root, "demo", agent, c.key(agent), until))
	if err == nil {
		err = os.WriteFile(c.path(agent+".new"), raw, 0o600)
	}
	if err == nil {
		err = os.Rename(c.path(agent+".new"), c.path(agent+".member"))
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// with returns the edit of a Config by which an agent has a key under a policy.
func (c *authority) with(agent string, policy identity.Policy, edit ...func(*identity.Settings)) func(*rtc.Config) {
	c.t.Helper()
	c.key(agent)
	s := identity.Settings{KeyFile: c.path(agent + ".key"), MeshName: "demo", Policy: policy}
	switch policy {
	case identity.Known:
		s.KnownPeersFile = c.path(agent + ".known")
	case identity.Member:
		if _, err := os.Stat(c.path(agent + ".member")); err != nil {
			c.admit(agent, time.Now().Add(time.Hour))
		}
		s.Roots, s.MembershipFile = []string{identity.Public(c.root).String()}, c.path(agent+".member")
	}
	for _, e := range edit {
		e(&s)
	}
	id, err := identity.Open(s)
	if err != nil {
		c.t.Fatal(err)
	}
	return func(cfg *rtc.Config) { cfg.Identity = id }
}

// refusal returns why an agent refused a peer, "" if it did not.
func refusal(a *agent, peer string) string {
	if e := get(a.recorder, func() *wire.Error { return a.failed[peer] }); e != nil && e.Code == wire.CodeIdentity {
		return e.Text
	}
	return ""
}

func TestIdentity(t *testing.T) {
	required := func(s *identity.Settings) { s.Required = true }
	elsewhere := func(s *identity.Settings) { s.MeshName = "" } // which refuses nobody: else the first to refuse hides why the other does
	none := func(*authority) func(*rtc.Config) { return func(*rtc.Config) {} }
	as := func(agent string, p identity.Policy, edit ...func(*identity.Settings)) func(*authority) func(*rtc.Config) {
		return func(c *authority) func(*rtc.Config) { return c.with(agent, p, edit...) }
	}
	tests := []struct {
		name    string
		a, b    func(*authority) func(*rtc.Config)
		refused string // why a refuses b; "" if it does not
	}{
		{"off, both with keys", as("a", identity.Off), as("b", identity.Off), ""},
		{"off, one with a key", as("a", identity.Off), none, ""},
		{"off, in another mesh", as("a", identity.Off), as("b", identity.Off, elsewhere), `it is of mesh "", and this agent is of "demo"`},
		{"known", as("a", identity.Known), as("b", identity.Off), ""},
		{"known, without a key", as("a", identity.Known), none, ""},
		{"known and required, without a key", as("a", identity.Known, required), none, "it has shown no identity, and this agent requires one"},
		{"member", as("a", identity.Member), as("b", identity.Member), ""},
		{"member, without a key", as("a", identity.Member), none, "it has shown no identity, and this agent requires one"},
		{"member, without a statement", as("a", identity.Member), as("b", identity.Off), "not a member: it has shown no statement of a root"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, h := newAuthority(t), newHub(t)
			a, b := start(t, h, "a", tt.a(c)).join(), start(t, h, "b", tt.b(c)).join()
			if tt.refused != "" {
				testutil.Eventually(t, "the refusal", func() bool { return refusal(a, "b") != "" })
				if got := refusal(a, "b"); !strings.Contains(got, tt.refused) {
					t.Errorf("refused because %q, want ...%s...", got, tt.refused)
				}
				if a.history() != "[]" {
					t.Errorf("history %s", a.history())
				}
				return
			}
			linked(t, a, b)
			for _, x := range []struct{ self, other *agent }{{a, b}, {b, a}} {
				want := ""
				if _, err := os.Stat(c.path(x.other.id + ".key")); err == nil {
					want = c.key(x.other.id).String()
				}
				if got := x.self.peer(x.other.id).Key(); got != want {
					t.Errorf("%s shows the key %q, want %q", x.self.id, got, want)
				}
			}
			send(t, a.peer("b"), `{"type":"t"}`)
			testutil.Eventually(t, "a message", func() bool { return len(b.received("a")) == 1 })
		})
	}
}

// A peer that comes again and again although it is refused is reported once, and comes more and more slowly.
func TestRefusedAgainAndAgain(t *testing.T) {
	t.Parallel()
	c, h := newAuthority(t), newHub(t)
	var reports atomic.Int32
	a := start(t, h, "a", c.with("a", identity.Member), func(cfg *rtc.Config) { cfg.Refused(time.Hour) })
	a.onFailed = func() { reports.Add(1) }
	a.join()
	b := start(t, h, "b").join()
	testutil.Eventually(t, "several attempts", func() bool { return strings.Count(b.history(), "+a") >= 4 })
	if n := reports.Load(); n != 1 {
		t.Errorf("%d reports", n)
	}
	if a.history() != "[]" {
		t.Errorf("history %s", a.history())
	}
	if n := b.Short("a"); n < 3 {
		t.Errorf("%d links that ended at once are counted", n)
	}
}

// A key that has changed, or is gone, is refused under policy known, also from a peer that takes its caps away.
func TestChangedKey(t *testing.T) {
	for name, imposter := range map[string]func(*testing.T, *authority, *hub) (join func()){
		"another key": func(t *testing.T, c *authority, h *hub) func() {
			return func() { start(t, h, "b", c.with("imposter", identity.Off)).join() }
		},
		"no key": func(t *testing.T, _ *authority, h *hub) func() {
			return func() { start(t, h, "b").join() }
		},
		"base framing": func(t *testing.T, _ *authority, h *hub) func() {
			return func() { startBase(t, h, "b").join() }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, h := newAuthority(t), newHub(t)
			a := start(t, h, "a", c.with("a", identity.Known)).join()
			b := start(t, h, "b", c.with("b", identity.Off)).join()
			linked(t, a, b)
			b.close(t)
			testutil.Eventually(t, "the end", func() bool { return a.history() == "[+b -b]" })
			imposter(t, c, h)()
			testutil.Eventually(t, "the refusal", func() bool { return refusal(a, "b") != "" })
			if a.history() != "[+b -b]" {
				t.Errorf("history %s", a.history())
			}
			start(t, h, "b", c.with("b", identity.Off)).join()
			testutil.Eventually(t, "the true peer", func() bool { return a.history() == "[+b -b +b]" })
		})
	}
}

// A name that certifies a key is of no use to another agent, whatever the policy and the framing.
func TestCertifiedID(t *testing.T) {
	c := newAuthority(t)
	id := c.key("x").ID()
	for name, imposter := range map[string]func(*testing.T, *hub){
		"another key":  func(t *testing.T, h *hub) { start(t, h, id, c.with("y", identity.Off)).join() },
		"no key":       func(t *testing.T, h *hub) { start(t, h, id).join() },
		"base framing": func(t *testing.T, h *hub) { startBase(t, h, id).join() },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t)
			a := start(t, h, "a").join()
			imposter(t, h)
			testutil.Eventually(t, "the refusal", func() bool { return refusal(a, id) != "" })
			start(t, h, id, c.with("x", identity.Off)).join()
			testutil.Eventually(t, "the true peer", func() bool { return a.history() == "[+"+id+"]" })
			if got := a.peer(id).Key(); got != c.key("x").String() {
				t.Errorf("key %q", got)
			}
		})
	}
}

// As signaling relays honestly, everything that it may do besides ends no proven link, nor interrupts it.
func TestProvenLinkStays(t *testing.T) {
	var mu sync.Mutex
	var seen []signal.Message
	c, h := newAuthority(t), newHub(t)
	h.setFilter(func(m signal.Message) []signal.Message {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, m)
		return []signal.Message{m}
	})
	a := start(t, h, "a", c.with("a", identity.Off)).join()
	b := start(t, h, "b", c.with("b", identity.Off)).join()
	linked(t, a, b)
	h.setFilter(nil)
	forge := func(typ, from string, edit func(*signal.Description)) {
		mu.Lock()
		defer mu.Unlock()
		for _, m := range seen {
			if m.PeerID != from || m.Type != signal.Offer && m.Type != signal.Answer {
				continue
			}
			var d signal.Description
			if err := json.Unmarshal(m.Payload, &d); err != nil {
				t.Fatal(err)
			}
			edit(&d)
			m.Type = typ
			m.Payload, _ = json.Marshal(d)
			h.deliver(m)
			return
		}
		t.Fatalf("%s has sent no description", from)
	}
	credentials := func(d *signal.Description) {
		for _, f := range []string{"a=ice-ufrag:", "a=ice-pwd:"} {
			head, rest, _ := strings.Cut(d.SDP, f)
			_, rest, _ = strings.Cut(rest, "\r\n")
			d.SDP = head + f + "forgedforgedforgedforgedforged\r\n" + rest
		}
	}
	for _, from := range []string{"a", "b"} {
		for _, edit := range map[string]func(*signal.Description){
			"restart":          credentials,
			"numbered restart": func(d *signal.Description) { credentials(d); d.Number = 1 },
			"signed restart":   func(d *signal.Description) { credentials(d); d.Number, d.Sig = 7, strings.Repeat("A", 86)+"==" },
			"candidates":       func(d *signal.Description) { withCandidates(d, 300) },
			"fingerprint": func(d *signal.Description) {
				head, rest, _ := strings.Cut(d.SDP, "a=fingerprint:sha-256 ")
				d.SDP = head + "a=fingerprint:sha-256 AA:AA" + rest[5:]
			},
			"new session":  func(d *signal.Description) { d.Session = "forged" },
			"new instance": func(d *signal.Description) { d.Session, d.Instance = "forged2", "forged" },
			"base":         func(d *signal.Description) { d.Session, d.Instance, d.Caps = "", "", nil },
			"garbage":      func(d *signal.Description) { d.Session, d.SDP = "forged3", "garbage" },
		} {
			for _, typ := range []string{signal.Offer, signal.Answer} {
				forge(typ, from, edit)
			}
		}
	}
	for i := range 300 {
		raw, _ := json.Marshal(signal.ICECandidate{Candidate: fmt.Sprintf("candidate:%d 1 udp 2130706431 127.0.0.1 %d typ host", i, 20000+i), SDPMid: ptr("0")})
		h.deliver(signal.Message{Type: signal.Candidate, PeerID: "b", TargetID: "a", Payload: raw})
	}
	for i := range 200 {
		send(t, a.peer("b"), message(i, 100))
		send(t, b.peer("a"), message(i, 100))
	}
	gone, _ := json.Marshal(signal.ErrorPayload{Code: signal.CodePeerUnavailable, TargetID: "b"})
	a.Receive(signal.Message{Type: signal.ErrorType, PeerID: "registry", Payload: gone})
	a.Registered("a", signal.PeersPayload{})
	testutil.Eventually(t, "all messages", func() bool { return len(b.received("a")) == 200 && len(a.received("b")) == 200 })
	if a.Recovering("b") || b.Recovering("a") {
		t.Error("the link was interrupted")
	}
	if ha, hb := a.history(), b.history(); ha != "[+b]" || hb != "[+a]" {
		t.Errorf("history %s and %s", ha, hb)
	}
}

// A restart is signed, and what signaling has seen of an earlier one does not pass for the next.
func TestSignedRestart(t *testing.T) {
	t.Parallel()
	c := newAuthority(t)
	h := newHub(t)
	ca, cb := newCable(t), newCable(t)
	a := start(t, h, "a", c.with("a", identity.Off), func(cfg *rtc.Config) { cfg.UseNet(ca) }).join()
	b := start(t, h, "b", c.with("b", identity.Off), func(cfg *rtc.Config) { cfg.UseNet(cb) }).join()
	linked(t, a, b)
	var mu sync.Mutex
	var restarts []signal.Message
	h.setFilter(func(m signal.Message) []signal.Message {
		mu.Lock()
		defer mu.Unlock()
		if m.Type == signal.Offer || m.Type == signal.Answer {
			restarts = append(restarts, m)
		}
		return []signal.Message{m}
	})
	for round := range 2 {
		ca.cut.Store(true)
		cb.cut.Store(true)
		testutil.Eventually(t, "a restart", func() bool {
			return a.Recovering("b") && b.Recovering("a") && h.count(signal.Answer, "a", "b") > round+1
		})
		ca.cut.Store(false)
		cb.cut.Store(false)
		send(t, a.peer("b"), message(round, 50))
		testutil.Eventually(t, "a message", func() bool { return len(b.received("a")) == round+1 })
		testutil.Eventually(t, "the end of the repair", func() bool { return !a.Recovering("b") && !b.Recovering("a") })
	}
	mu.Lock()
	again := restarts
	mu.Unlock()
	signed, asks, answers := 0, 0, h.count(signal.Answer, "a", "b")
	for _, m := range again {
		var d signal.Description
		if err := json.Unmarshal(m.Payload, &d); err != nil {
			t.Fatal(err)
		}
		switch {
		case d.Restart: // the wish for one, which is not signed
			asks++
		case d.Number > 0 && d.Sig != "":
			signed++
		}
		if m.Type == signal.Offer && d.Number == 1 {
			h.deliver(m) // the first restart, once more
		}
	}
	if signed != len(again)-asks || signed < 4 {
		t.Errorf("%d of %d descriptions are signed", signed, len(again)-asks)
	}
	send(t, a.peer("b"), message(2, 50))
	testutil.Eventually(t, "a message", func() bool { return len(b.received("a")) == 3 })
	if a.Recovering("b") || b.Recovering("a") || h.count(signal.Answer, "a", "b") != answers {
		t.Error("an old restart was taken for a new one")
	}
	if ha, hb := a.history(), b.history(); ha != "[+b]" || hb != "[+a]" {
		t.Errorf("history %s and %s", ha, hb)
	}
}

// A base peer cannot show who it is, so it replaces no link of one that has.
func TestProvenLinkAndBasePeer(t *testing.T) {
	c, h := newAuthority(t), newHub(t)
	a := start(t, h, "a", c.with("a", identity.Off)).join()
	b := start(t, h, "b", c.with("b", identity.Off)).join()
	linked(t, a, b)
	startBase(t, h, "b").join()
	testutil.Eventually(t, "the refusal", func() bool { return strings.Contains(refusal(a, "b"), "it had an identity") })
	send(t, a.peer("b"), `{"type":"t"}`)
	testutil.Eventually(t, "a message to the first", func() bool { return len(b.received("a")) == 1 })
	if a.history() != "[+b]" || h.count(signal.Answer, "a", "b") > 1 {
		t.Errorf("history %s, %d answers", a.history(), h.count(signal.Answer, "a", "b"))
	}
}

// A peer that was restarted replaces its link at once if it proves the same key, or one that a root vouches for, or the
// first one after its old one was forgotten.
func TestProvenRestart(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		policy   identity.Policy
		rotated  bool // another key
		forgot   bool // as "mesh key known forget" does
		replaced bool
	}{
		{"off, same key", identity.Off, false, false, true},
		{"off, another key", identity.Off, true, false, false},
		{"known, same key", identity.Known, false, false, true},
		{"known, another key", identity.Known, true, false, false},
		{"known, another key, forgotten", identity.Known, true, true, true},
		{"member, same key", identity.Member, false, false, true},
		{"member, another key", identity.Member, true, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, h := newAuthority(t), newHub(t)
			a := start(t, h, "a", c.with("a", tt.policy)).join()
			b := start(t, h, "b", c.with("b", tt.policy)).join()
			linked(t, a, b)
			if tt.rotated {
				if err := os.Rename(c.path("b.key"), c.path("old.key")); err != nil {
					t.Fatal(err)
				}
				_ = os.Remove(c.path("b.member"))
			}
			if tt.forgot {
				known, err := identity.OpenKnownPeers(c.path("a.known"), "demo")
				if err == nil {
					_, err = known.Forget("b")
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			again := start(t, h, "b", c.with("b", tt.policy)).join()
			if !tt.replaced {
				testutil.Eventually(t, "the refusal", func() bool { return refusal(a, "b") != "" })
				send(t, a.peer("b"), `{"type":"t"}`)
				testutil.Eventually(t, "a message to the first", func() bool { return len(b.received("a")) == 1 })
				if a.history() != "[+b]" {
					t.Errorf("history %s", a.history())
				}
				return
			}
			testutil.Eventually(t, "the new link", func() bool { return a.history() == "[+b -b +b]" && again.peer("a") != nil })
			if r := get(a.recorder, func() error { return a.reasons[0] }); !errors.Is(r, rtc.ErrRestarted) {
				t.Errorf("reason %v", r)
			}
			send(t, a.peer("b"), `{"type":"t"}`)
			testutil.Eventually(t, "a message", func() bool { return len(again.received("a")) == 1 })
		})
	}
}

// A link to a peer whose statement expires ends, and one whose peer has a newer statement stays.
func TestMembershipEnds(t *testing.T) {
	t.Parallel()
	c, h := newAuthority(t), newHub(t)
	soon := time.Now().Add(8 * time.Second) // enough for the links, also on a machine that stands still for a while
	c.admit("b", soon)
	c.admit("d", soon)
	a := start(t, h, "a", c.with("a", identity.Member)).join()
	b := start(t, h, "b", c.with("b", identity.Member)).join()
	d := start(t, h, "d", c.with("d", identity.Member)).join()
	linked(t, a, b, d)
	c.admit("d", soon.Add(time.Hour))
	testutil.Eventually(t, "the end", func() bool { return refusal(a, "b") != "" })
	if got := refusal(a, "b"); !strings.Contains(got, "its membership expired at") {
		t.Errorf("refused because %q", got)
	}
	if time.Now().Before(soon.Truncate(time.Second)) {
		t.Error("it ended before its time")
	}
	send(t, a.peer("d"), `{"type":"t"}`)
	testutil.Eventually(t, "a message to the renewed member", func() bool { return len(d.received("a")) == 1 })
	if got := a.history(); strings.Contains(got, "-d") {
		t.Errorf("history %s", got)
	}
}

// A key that is revoked while its link is up ends it.
func TestRevoked(t *testing.T) {
	t.Parallel()
	c, h := newAuthority(t), newHub(t)
	write := func(text string) {
		if err := os.WriteFile(c.path("revoked"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# none\n")
	a := start(t, h, "a", c.with("a", identity.Off, func(s *identity.Settings) { s.RevokedFile = c.path("revoked") })).join()
	b := start(t, h, "b", c.with("b", identity.Off)).join()
	d := start(t, h, "d", c.with("d", identity.Off)).join()
	linked(t, a, b, d)
	write("# lost\n" + c.key("b").String() + " # b's laptop\n")
	testutil.Eventually(t, "the end", func() bool { return strings.Contains(refusal(a, "b"), "its key is revoked") })
	write("damaged\n") // what it said before counts
	testutil.Eventually(t, "the report of that", func() bool {
		return get(a.recorder, func() bool { return len(a.faults) == 1 && strings.Contains(a.faults[0].Error(), c.path("revoked")) })
	})
	b.Connect("a")
	a.Connect("b")
	testutil.Eventually(t, "the end of another try", func() bool { return strings.Contains(refusal(a, "b"), "its key is revoked") })
	send(t, a.peer("d"), `{"type":"t"}`)
	testutil.Eventually(t, "a message", func() bool { return len(d.received("a")) == 1 })
}

// A relay between two links is found out, whatever it makes of the hellos.
func TestHelloRelayed(t *testing.T) {
	c, h := newAuthority(t), newHub(t)
	a := start(t, h, "a", c.with("a", identity.Off)).join()
	x := crafted(t, h, "s1").join()
	testutil.Eventually(t, "its hello", func() bool { return len(x.received()) > 0 && x.channel("a") != nil })
	if err := x.channel("a").Send([]byte(x.received()[0])); err != nil { // reflected
		t.Fatal(err)
	}
	testutil.Eventually(t, "the refusal", func() bool { return strings.Contains(refusal(a, "x"), "wrong signature") })
	if a.history() != "[]" {
		t.Errorf("history %s", a.history())
	}
}

// What is wrong with this agent's own file is not said of the peer.
func TestKnownPeersUnreadable(t *testing.T) {
	for name, meet := range map[string]func(*testing.T, *authority, *hub, *agent){
		"a key": func(t *testing.T, c *authority, h *hub, a *agent) {
			start(t, h, "b", c.with("b", identity.Off)).join()
			a.Connect("b")
		},
		"no key": func(t *testing.T, _ *authority, h *hub, a *agent) {
			start(t, h, "b").join()
			a.Connect("b")
		},
		"base framing": func(t *testing.T, _ *authority, h *hub, a *agent) {
			b := startBase(t, h, "b")
			b.mute = true
			h.mu.Lock()
			h.members["b"] = b // there, but not announced
			h.mu.Unlock()
			a.Connect("b")
			testutil.Eventually(t, "our offer", func() bool { return h.count(signal.Offer, "a", "b") == 1 })
			b.offer("a")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, h := newAuthority(t), newHub(t)
			a := start(t, h, "a", c.with("a", identity.Known)).join()
			if err := os.WriteFile(c.path("a.known"), []byte("garbage\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			meet(t, c, h, a)
			failure := func() *wire.Error { return get(a.recorder, func() *wire.Error { return a.failed["b"] }) }
			testutil.Eventually(t, "the failure", func() bool { return failure() != nil })
			if e := failure(); e.Code != wire.CodeInternal || !strings.Contains(e.Text, c.path("a.known")) {
				t.Errorf("%s: %s", e.Code, e.Text)
			}
		})
	}
}

// Where nobody has asked for the link the agent is told all the same, but not of each peer.
func TestKnownPeersUnwritable(t *testing.T) {
	c, h := newAuthority(t), newHub(t)
	a := start(t, h, "a", c.with("a", identity.Known)).join()
	if err := os.Mkdir(c.path("a.known.new"), 0o700); err != nil { // where the next one would be written
		t.Fatal(err)
	}
	if err := os.WriteFile(c.path("a.known.new/x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, peer := range []string{"b", "c"} {
		p := start(t, h, peer, c.with(peer, identity.Off)).join()
		testutil.Eventually(t, "the end of its link", func() bool { return strings.Contains(p.history(), "-a") })
	}
	testutil.Eventually(t, "a report", func() bool { return get(a.recorder, func() bool { return len(a.faults) > 0 }) })
	faults := get(a.recorder, func() []error { return a.faults })
	if len(faults) != 1 || !strings.Contains(faults[0].Error(), c.path("a.known.new")) {
		t.Errorf("faults %v", faults)
	}
	if err := os.RemoveAll(c.path("a.known.new")); err != nil {
		t.Fatal(err)
	}
	a.Connect("b")
	testutil.Eventually(t, "the link", func() bool { return a.peer("b") != nil })
}
