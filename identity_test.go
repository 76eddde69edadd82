package mesh

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// A keyring is a directory with what the agents of a test need to prove who they are.
type keyring struct {
	t    *testing.T
	dir  string
	root ed25519.PrivateKey
}

const meshName = "demo"

func newKeyring(t *testing.T) *keyring {
	k := &keyring{t: t, dir: t.TempDir()}
	k.root = k.private("root")
	return k
}

func (k *keyring) path(name string) string { return filepath.Join(k.dir, name) }

// key returns the file with the key of a name, which is made at the first use.
func (k *keyring) key(name string) string {
	k.t.Helper()
	path := k.path(name + ".pem")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if _, err := identity.NewKeyFile(path); err != nil {
		k.t.Fatal(err)
	}
	return path
}

func (k *keyring) private(name string) ed25519.PrivateKey {
	k.t.Helper()
	key, err := identity.ReadKey(k.key(name))
	if err != nil {
		k.t.Fatal(err)
	}
	return key
}

func (k *keyring) public(name string) identity.PublicKey { return identity.Public(k.private(name)) }

// statement returns one about the key of a name, by the root.
func (k *keyring) statement(name, peer string, until time.Time) *identity.Statement {
	st := identity.NewStatement(k.root, meshName, peer, k.public(name), until)
	return &st
}

// write writes a file that others may read.
func (k *keyring) write(file, text string) string {
	k.t.Helper()
	path := k.path(file)
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		k.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		k.t.Fatal(err)
	}
	return path
}

// membership writes the file with the statement about a name.
func (k *keyring) membership(name, peer string, until time.Time) string {
	k.t.Helper()
	b, err := json.Marshal(k.statement(name, peer, until))
	if err != nil {
		k.t.Fatal(err)
	}
	return k.write(name+".member", string(b))
}

// bare is the identity of an agent with the key of a name, whose policy is off.
func (k *keyring) bare(name string) Identity {
	return Identity{KeyFile: k.key(name), MeshName: meshName}
}

// known is the identity of an agent that has a file of known peers of its own.
func (k *keyring) known(name string, required bool) Identity {
	id := k.bare(name)
	id.Policy, id.Required, id.KnownPeersFile = IdentityKnown, required, k.path(name+".known")
	return id
}

// pin writes the key of other into the file of known peers of a name.
func (k *keyring) pin(name, peer, other string) {
	k.t.Helper()
	known, err := identity.OpenKnownPeers(k.path(name+".known"), meshName)
	if err == nil {
		err = known.Pin(peer, k.public(other))
	}
	if err != nil {
		k.t.Fatal(err)
	}
}

// member is the identity of an agent whose key the root has signed for a peer id.
func (k *keyring) member(name, peer string) Identity {
	id := k.bare(name)
	id.Policy, id.Roots = IdentityMember, []string{identity.Public(k.root).String()}
	id.MembershipFile = k.membership(name, peer, time.Now().Add(time.Hour))
	return id
}

// A guard is how two agents protect themselves.
type guard struct {
	name string
	// certified: their ids certify their keys.
	certified bool
	// who returns the identity of one of the two, whose peer id is id; the other's are other and otherID.
	who func(k *keyring, name, id, other, otherID string) Identity
}

var guards = []guard{
	{name: "off, no keys", who: func(*keyring, string, string, string, string) Identity { return Identity{MeshName: meshName} }},
	{name: "off", who: func(k *keyring, name, _, _, _ string) Identity { return k.bare(name) }},
	{name: "off, certified ids", certified: true, who: func(k *keyring, name, _, _, _ string) Identity { return k.bare(name) }},
	{name: "known, first contact", who: func(k *keyring, name, _, _, _ string) Identity { return k.known(name, false) }},
	{name: "known, pinned", who: func(k *keyring, name, _, other, otherID string) Identity {
		k.pin(name, otherID, other)
		return k.known(name, false)
	}},
	{name: "required, first contact", who: func(k *keyring, name, _, _, _ string) Identity { return k.known(name, true) }},
	{name: "required, pinned", who: func(k *keyring, name, _, other, otherID string) Identity {
		k.pin(name, otherID, other)
		return k.known(name, true)
	}},
	{name: "member", who: func(k *keyring, name, id, _, _ string) Identity { return k.member(name, id) }},
}

// readable is what wants says of a guard under which mallory reads and forges what she likes.
const readable = ""

// wants says what an attack comes to under each guard: readable, or the reason that both victims give. With a |
// between them, the first is that of the one that was offered a link, the second that of the one that has offered.
type wants map[string]string

// everywhere is the outcome under all guards, except for those in but.
func everywhere(reason string, but wants) wants {
	w := make(wants)
	for _, g := range guards {
		w[g.name] = reason
	}
	for name, reason := range but {
		w[name] = reason
	}
	return w
}

// An attack is what mallory does to two agents that meet for the first time since they were started.
type attack struct {
	name string
	// prepare, if set, returns the trick once the agents are there, after the victims have refused another one's
	// hello: see replay.
	prepare func(t *testing.T, m *mallory, k *keyring, ids [2]string) trick
	wants   wants
}

// none is the reason for refusing a peer that has shown no identity.
var none = wants{
	"off, no keys": readable, "off": readable, "known, first contact": readable, // accepted, as documented
	"off, certified ids": "its id certifies a key",
	"known, pinned":      "has a key for it",
	"required, pinned":   "this agent requires one", "required, first contact": "this agent requires one",
	"member": "this agent requires one",
}

var attacks = []attack{
	{name: "hellos as they are", wants: everywhere("wrong signature", wants{"off, no keys": readable})},
	{
		name: "hellos as they are, in sessions of the same names", wants: everywhere("wrong signature", wants{"off, no keys": readable}),
		prepare: func(*testing.T, *mallory, *keyring, [2]string) trick { return trick{borrow: true} },
	},
	{name: "hellos without identity", wants: none, prepare: func(*testing.T, *mallory, *keyring, [2]string) trick {
		return trick{show: func(to *leg) string { return to.shows(nil) }}
	}},
	{name: "no capabilities", wants: none, prepare: func(*testing.T, *mallory, *keyring, [2]string) trick {
		return trick{noCaps: true}
	}},
	{name: "neither capabilities nor sessions", wants: none, prepare: func(*testing.T, *mallory, *keyring, [2]string) trick {
		return trick{noCaps: true, noSession: true}
	}},
	{
		name: "no sessions",
		wants: everywhere("wrong signature", wants{
			"off, no keys":            readable,
			"off, certified ids":      "its id certifies a key|wrong signature",
			"known, pinned":           "has a key for it|wrong signature",
			"required, first contact": "this agent requires one|wrong signature",
			"required, pinned":        "this agent requires one|wrong signature",
			"member":                  "this agent requires one|wrong signature",
		}),
		prepare: func(t *testing.T, m *mallory, k *keyring, ids [2]string) trick {
			how := replay(t, m, k, ids) // she gets no hello of one that refuses her offer
			how.noSession = true
			return how
		},
	},
	{
		name:  "their own hellos",
		wants: everywhere("wrong signature", wants{"off, no keys": readable}),
		prepare: func(*testing.T, *mallory, *keyring, [2]string) trick {
			return trick{show: func(to *leg) string { return to.hello }}
		},
	},
	{
		name:    "hellos of the attempt before",
		wants:   everywhere("wrong signature", wants{"off, no keys": readable}),
		prepare: replay,
	},
	{
		name:    "hellos to herself",
		wants:   everywhere("wrong signature", wants{"off, no keys": readable}),
		prepare: insider,
	},
	{
		name: "a key of her own",
		wants: everywhere("its key has changed", wants{
			"off, no keys": readable, "off": readable,
			"known, first contact": readable, "required, first contact": readable, // the limit of a first contact
			"off, certified ids": "not the one that its id certifies",
			"member":             "not a member: it has shown no statement",
		}),
		prepare: func(t *testing.T, _ *mallory, k *keyring, _ [2]string) trick { return ownKey(t, k, nil) },
	},
	{
		name:  "a key of her own, with the other's statement",
		wants: wants{"member": "not a member: the statement is about another key"},
		prepare: func(t *testing.T, _ *mallory, k *keyring, _ [2]string) trick {
			own := ownKey(t, k, func(to *leg) *identity.Statement { return shown(t, to.other().hello).Member }).show
			return trick{show: func(to *leg) string {
				if to.other().hello == "" {
					return ""
				}
				return own(to)
			}}
		},
	},
	{
		name:  "a key of her own, with a statement about herself",
		wants: wants{"member": `not a member: the statement is about "mallory"`},
		prepare: func(t *testing.T, _ *mallory, k *keyring, _ [2]string) trick {
			return ownKey(t, k, func(*leg) *identity.Statement {
				return k.statement("mallory", "mallory", time.Now().Add(time.Hour))
			})
		},
	},
	{
		name:  "a key of her own, with a statement of her own",
		wants: wants{"member": "not a member: the statement is not signed by a root"},
		prepare: func(t *testing.T, _ *mallory, k *keyring, _ [2]string) trick {
			return ownKey(t, k, func(to *leg) *identity.Statement {
				st := identity.NewStatement(k.private("mallory"), meshName, to.as, k.public("mallory"), time.Now().Add(time.Hour))
				return &st
			})
		},
	},
	{
		name:  "a key of her own, with a statement about another mesh",
		wants: wants{"member": `not a member: the statement is about mesh "other"`},
		prepare: func(t *testing.T, _ *mallory, k *keyring, _ [2]string) trick {
			return ownKey(t, k, func(to *leg) *identity.Statement {
				st := identity.NewStatement(k.root, "other", to.as, k.public("mallory"), time.Now().Add(time.Hour))
				return &st
			})
		},
	},
	{
		name:  "a key of her own, with a statement that has expired",
		wants: wants{"member": "not a member: the statement expired"},
		prepare: func(t *testing.T, _ *mallory, k *keyring, _ [2]string) trick {
			return ownKey(t, k, func(to *leg) *identity.Statement {
				return k.statement("mallory", to.as, time.Now().Add(-time.Hour))
			})
		},
	},
	{
		name:  "the other's key, with a signature by her own",
		wants: everywhere("wrong signature", nil),
		prepare: func(t *testing.T, _ *mallory, k *keyring, ids [2]string) trick {
			own, names := ownKey(t, k, nil).show, map[string]string{ids[0]: "alice", ids[1]: "bob"}
			return trick{show: func(to *leg) string {
				s := shown(t, own(to))
				s.Key = k.public(names[to.as]).String()
				return to.shows(s)
			}}
		},
	},
	{
		name:  "a key for which anyone can sign",
		wants: everywhere("its key: a point of small order", nil),
		prepare: func(*testing.T, *mallory, *keyring, [2]string) trick {
			return trick{show: func(to *leg) string {
				// The signature is right for this key, whatever is signed.
				return to.shows(&identity.Shown{
					Key: "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
					Sig: "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==",
				})
			}}
		},
	},
}

// ownKey returns the trick of showing mallory's own identity, with a statement.
func ownKey(t *testing.T, k *keyring, member func(to *leg) *identity.Statement) trick {
	id, err := identity.Open(identity.Settings{KeyFile: k.key("mallory"), MeshName: meshName})
	if err != nil {
		t.Fatal(err)
	}
	return trick{show: func(to *leg) string {
		s := id.Show(to.link())
		if member != nil {
			s.Member = member(to)
		}
		return to.shows(s)
	}}
}

// replay has the victims make a link once, and returns the trick of showing each the other's hello of then. Her
// certificate is the same; the victims' are, too.
func replay(t *testing.T, m *mallory, _ *keyring, ids [2]string) trick {
	old := collectHellos(t, m, [2]string{ids[1], ids[0]}, trick{show: func(*leg) string { return "" }}, ids)
	return trick{show: func(to *leg) string { return old[to.as] }}
}

// insider has the victims make links to mallory herself, who is in the mesh under an id of her own, and returns the
// trick of showing each what the other has said to her.
func insider(t *testing.T, m *mallory, _ *keyring, ids [2]string) trick {
	old := make(map[string]string)
	for _, id := range ids {
		hellos := collectHellos(t, m, [2]string{id, "mallory"}, trick{alone: true, show: func(*leg) string { return "" }}, [2]string{id})
		old[id] = hellos[id]
	}
	return trick{show: func(to *leg) string { return old[to.as] }}
}

// collectHellos has the first of two peers offer the other one a link, and returns what victims have said.
func collectHellos(t *testing.T, m *mallory, peers [2]string, how trick, victims [2]string) (hellos map[string]string) {
	m.turn(m.middle(how))
	m.list(peers[0], peers[1])
	testutil.Eventually(t, "mallory has the hellos", func() bool {
		hellos = m.hellos(peers[0], peers[1])
		for _, id := range victims {
			if id != "" && hellos[id] == "" {
				return false
			}
		}
		return true
	})
	m.turn(nothing)
	m.end(peers[0], peers[1])
	return hellos
}

// secrets are what the victims say to each other as soon as they are linked.
func secret(name string) string { return "the secret of " + name }

// TestManInTheMiddle has mallory between two agents, with every trick and under every guard. The quick tests have each
// trick under the first guard that it is for, and the first trick under every guard.
func TestManInTheMiddle(t *testing.T) {
	tried := make(map[string]bool)
	for _, g := range guards {
		for i, a := range attacks {
			want, applies := a.wants[g.name]
			if !applies || !testutil.Full() && i > 0 && tried[a.name] {
				continue
			}
			tried[a.name] = true
			t.Run(g.name+"/"+a.name, func(t *testing.T) {
				t.Parallel()
				testMiddle(t, g, a, want)
			})
		}
	}
}

func testMiddle(t *testing.T, g guard, a attack, want string) {
	m, k := newMallory(t), newKeyring(t)
	m.quiet = true
	names := [2]string{"alice", "bob"}
	ids := names
	if g.certified {
		for i, name := range names {
			ids[i] = k.public(name).ID()
			m.rename(name, ids[i])
		}
	}
	var victims [2]*agent
	var heard [2]testutil.Record[string]
	var fakes [2]testutil.Record[string]
	for i, name := range names {
		other := 1 - i
		who := g.who(k, name, ids[i], names[other], ids[other])
		victims[i] = (&stage{url: m.url}).startAs(t, InProcess, name, who, func(cfg *Config) {
			collect := func(r *testutil.Record[string]) Handler {
				return func(_ context.Context, msg *Message) (any, error) {
					r.Add(fmt.Sprintf("%s: %s", msg.From, msg.Payload))
					return nil, nil
				}
			}
			cfg.Handlers = map[string]Handler{"secret": collect(&heard[i]), forgedType: collect(&fakes[i])}
			note := cfg.OnPeer
			cfg.OnPeer = func(e PeerEvent) {
				note(e)
				if e.Connected && e.ID == ids[other] {
					_ = e.Mesh().Send(context.Background(), e.ID, Message{Type: "secret", Payload: secret(name)})
				}
			}
		})
	}
	how := trick{}
	if a.prepare != nil {
		how = a.prepare(t, m, k, ids)
	}
	m.turn(m.middle(how))
	m.list(ids[1], ids[0]) // bob offers
	if want == readable {
		for i := range victims {
			testutil.Eventually(t, names[i]+" has the secret, and mallory's message", func() bool {
				return heard[i].Len() > 0 && fakes[i].Len() > 0 || victims[i].reports.Len() > 0
			})
			if all := victims[i].reports.All(); len(all) > 0 {
				t.Fatalf("%s: %v", names[i], all)
			}
		}
		for i := range victims {
			other := 1 - i
			if got := fakes[i].All()[0]; got != ids[other]+`: "by mallory"` {
				t.Errorf("%s got %s", names[i], got)
			}
			if !m.reads(secret(names[i])) {
				t.Errorf("mallory has not read what %s said", names[i])
			}
		}
		return
	}
	refusesEachOther(t, victims, ids, want)
	for i, v := range victims {
		other := 1 - i
		if err := v.Send(bounded(t), ids[other], Message{Type: "secret", Payload: secret(names[i])}); !errors.Is(err, ErrNotConnected) {
			t.Errorf("%s: Send: %v", names[i], err)
		}
		if events := v.eventsOf(ids[other], 0); len(events) > 0 || len(v.Peers()) > 0 && a.name != "hellos to herself" {
			t.Errorf("%s has had the events %v, and has the peers %v", names[i], events, v.Peers())
		}
		if m.reads(secret(names[i])) || heard[i].Len()+fakes[i].Len() > 0 {
			t.Errorf("mallory has read or said something: %q, %q", heard[i].All(), fakes[i].All())
		}
	}
	if m.readBytes() == 0 && !how.noCaps {
		t.Error("mallory has not even read the hellos: this test shows nothing")
	}
}

// refusesEachOther checks that two agents say why there is no link, everywhere. The second one has offered.
func refusesEachOther(t *testing.T, victims [2]*agent, ids [2]string, want string) {
	t.Helper()
	reasons := [2]string{want, want}
	offered, offering, both := strings.Cut(want, "|")
	says := func(err error, reason string) bool {
		return errors.Is(err, ErrIdentity) && strings.Contains(err.Error(), reason)
	}
	if both {
		reasons = [2]string{offered, offering}
	}
	for i, v := range victims {
		linked := func() bool { return slices.ContainsFunc(v.Peers(), func(p Peer) bool { return p.ID == ids[1-i] }) }
		testutil.Eventually(t, v.id+" says "+reasons[i], func() bool { return v.reports.Len() > 0 || linked() })
		if all := v.reports.All(); linked() || !slices.ContainsFunc(all, func(err error) bool { return says(err, reasons[i]) }) {
			t.Fatalf("%s has the peers %+v, and says %q, want %q", v.id, v.Peers(), all, reasons[i])
		}
	}
	refused := func(more [2]int) {
		t.Helper()
		for i, v := range victims { // the log of a sidecar comes later than what it reports
			testutil.Eventually(t, v.id+" refuses, too", func() bool { return v.refusals() > more[i] })
		}
	}
	refused([2]int{})
	for i, v := range victims {
		other, before := ids[1-i], [2]int{victims[0].refusals(), victims[1].refusals()}
		reason := reasons[i]
		if both {
			reason = offering // by Connect it offers
		}
		if err := v.Connect(bounded(t), other); !says(err, reason) {
			t.Errorf("%s: Connect: %v, want %q", v.id, err, reason)
		}
		// What mallory makes of this attempt at the other end is to be over before the next one.
		refused(before)
		over, cancel := context.WithDeadline(t.Context(), time.Now())
		defer cancel()
		if err := v.WaitPeer(over, other); !says(err, "") || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: WaitPeer: %v", v.id, err)
		}
	}
}

// refusals returns how often the agent has refused a peer, of which it is told only once in a while.
func (a *agent) refusals() int { return strings.Count(a.logs(), "peer refused") }

func isIdentity(err error) bool { return errors.Is(err, ErrIdentity) }
