package mesh

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// Identities work wherever the sidecar runs: members meet, see each other's keys, and refuse mallory.
func TestIdentityInEveryMode(t *testing.T) {
	sidecar := buildSidecar(t)
	for _, mode := range modesHere() {
		t.Run(mode.String(), func(t *testing.T) {
			s, m, k := newStage(t, sidecar), newMallory(t), newKeyring(t)
			s.url = m.url
			alice := s.startAs(t, mode, "alice", k.member("alice", "alice"))
			bob := s.startAs(t, mode, "bob", k.member("bob", "bob"))
			p := &pair{stage: s, alice: alice, bob: bob}
			p.meet(t)
			for _, way := range p.ways() {
				want := k.public(way[1].id).String()
				if e := way[0].waitEvents(t, way[1].id, 0, 1)[0]; e.Key != want || way[0].Peers()[0].Key != want {
					t.Errorf("%s: event %+v, peers %+v", way[0].id, e, way[0].Peers())
				}
				works(t, way[0], way[1])
			}
			bob.end(t)
			alice.waitEvents(t, "bob", 0, 2)
			m.turn(m.middle(trick{}))
			bob = s.startAs(t, mode, "bob", k.member("bob", "bob"))
			refusesEachOther(t, [2]*agent{alice, bob}, [2]string{"alice", "bob"}, "wrong signature")
			if len(alice.eventsOf("bob", 0)) != 2 || len(bob.eventsOf("alice", 0)) != 0 {
				t.Errorf("events %v and %v", alice.events.All(), bob.events.All())
			}
		})
	}
}

// A key is shown only of a peer that has proven it.
func TestPeerKey(t *testing.T) {
	for name, tc := range map[string]struct {
		relay     func(m *mallory) func(signal.Message)
		key, seen bool // bob has one, and alice sees it
	}{
		"with a key":            {key: true, seen: true},
		"without":               {},
		"without capabilities":  {key: true, relay: func(m *mallory) func(signal.Message) { return without(m, "caps") }},
		"without any extension": {key: true, relay: func(m *mallory) func(signal.Message) { return without(m, "caps", "session", "instance", "answers") }},
	} {
		t.Run(name, func(t *testing.T) {
			m, k := newMallory(t), newKeyring(t)
			if tc.relay != nil {
				m.turn(tc.relay(m))
			}
			s := &stage{url: m.url}
			who := Identity{MeshName: meshName}
			want := ""
			if tc.key {
				who = k.bare("bob")
			}
			if tc.seen {
				want = k.public("bob").String()
			}
			alice, bob := s.startAs(t, InProcess, "alice", Identity{MeshName: meshName}), s.startAs(t, InProcess, "bob", who)
			(&pair{alice: alice, bob: bob}).meet(t)
			if e := alice.waitEvents(t, "bob", 0, 1)[0]; e.Key != want || alice.Peers()[0].Key != want {
				t.Errorf("event %+v, peers %+v; want %q", e, alice.Peers(), want)
			}
			if key := bob.Peers()[0].Key; key != "" {
				t.Errorf("alice has no key, and bob sees %q", key)
			}
			works(t, alice, bob)
		})
	}
}

// Without sessions a signature could be of any other link between the two: it does not count, even if nobody is in the
// middle.
func TestIdentityWithoutSessions(t *testing.T) {
	m, k := newMallory(t), newKeyring(t)
	m.turn(without(m, "session"))
	s := &stage{url: m.url}
	alice, bob := s.startAs(t, InProcess, "alice", k.bare("alice")), s.startAs(t, InProcess, "bob", k.bare("bob"))
	// The first to refuse closes the link, so that the other one may not learn why.
	testutil.Eventually(t, "one of them refuses", func() bool { return alice.reports.Len()+bob.reports.Len() > 0 })
	for _, a := range []*agent{alice, bob} {
		for _, err := range a.reports.All() {
			if !isIdentity(err) || !strings.Contains(err.Error(), "wrong signature") {
				t.Errorf("%s: %v", a.id, err)
			}
		}
		if a.events.Len() > 0 {
			t.Errorf("%s: %v", a.id, a.events.All())
		}
	}
}

// A verified link goes on when the signaling server gives an agent without a key the id of its peer.
func TestOwnIDIsThatOfAPeer(t *testing.T) {
	m, k := newMallory(t), newKeyring(t)
	s := &stage{url: m.url}
	alice, bob := s.startAs(t, InProcess, "alice", Identity{MeshName: meshName}), s.startAs(t, InProcess, "bob", k.bare("bob"))
	(&pair{alice: alice, bob: bob}).meet(t)
	m.rename("alice", "bob")
	m.hangUp("alice")
	testutil.Eventually(t, "alice has another id", func() bool { return alice.ID() == "bob" })
	m.settled(t, "bob") // alice, by now
	works(t, alice, bob)
	if alice.events.Len() != 1 || bob.events.Len() != 1 {
		t.Errorf("events %v and %v", alice.events.All(), bob.events.All())
	}
}

// without returns a way to relay that takes fields from payloads.
func without(m *mallory, fields ...string) func(signal.Message) {
	return func(msg signal.Message) {
		m.pass(strip(m.t, msg, fields...))
	}
}

// A new key of a known peer is refused until somebody who knows forgets the old one.
func TestKeyRotationKnown(t *testing.T) {
	k := newKeyring(t)
	s := newStage(t, "")
	alice := s.startAs(t, InProcess, "alice", k.known("alice", true))
	bob := s.startAs(t, InProcess, "bob", k.bare("bob"))
	(&pair{alice: alice, bob: bob}).meet(t)
	bob.end(t)
	bob = s.startAs(t, InProcess, "bob", k.bare("bob2"))
	alice.reports.Wait(t, "alice refuses the new key", func(all []error) bool {
		return len(all) > 0 && isIdentity(all[0]) && strings.Contains(all[0].Error(), "its key has changed: "+k.path("alice.known"))
	})
	known, err := identity.OpenKnownPeers(k.path("alice.known"), meshName)
	if err != nil {
		t.Fatal(err)
	}
	if was, err := known.Forget("bob"); !was || err != nil {
		t.Fatal(was, err)
	}
	if err := alice.Connect(bounded(t), "bob"); err != nil {
		t.Fatal(err)
	}
	if key := alice.Peers()[0].Key; key != k.public("bob2").String() {
		t.Errorf("key %s", key)
	}
	if key, is, err := known.Lookup("bob"); !is || key != k.public("bob2") || err != nil {
		t.Errorf("the file has %v, %t, %v", key, is, err)
	}
	works(t, alice, bob)
}

// A member that starts again, with a new key and a statement about it, takes the place of the old one at once, which
// has not even gone.
func TestKeyRotationMember(t *testing.T) {
	m, k := newMallory(t), newKeyring(t)
	s := &stage{url: m.url}
	alice := s.startAs(t, InProcess, "alice", k.member("alice", "alice"))
	old := s.startAs(t, InProcess, "bob", k.member("bob", "bob"))
	(&pair{alice: alice, bob: old}).meet(t)
	bob := s.startAs(t, InProcess, "bob", k.member("bob2", "bob"))
	if err := bob.WaitPeer(bounded(t), "alice"); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, e := range alice.waitEvents(t, "bob", 0, 3) {
		keys = append(keys, e.Key)
	}
	first, second := k.public("bob").String(), k.public("bob2").String()
	if !slices.Equal(keys, []string{first, first, second}) {
		t.Errorf("events of the keys %q, want %s twice, then %s", keys, first, second)
	}
	works(t, alice, bob)
}

// A membership that ends, ends the link, unless there is a newer one.
func TestExpiryWhileConnected(t *testing.T) {
	testutil.SkipUnlessFull(t, "memberships that expire, in real time")
	t.Parallel()
	m, k := newMallory(t), newKeyring(t)
	s := &stage{url: m.url}
	alice := s.startAs(t, InProcess, "alice", k.member("alice", "alice"))
	soon := time.Now().Add(15 * time.Second) // time for carol's to be renewed
	agents := []*agent{}
	for _, name := range []string{"bob", "carol"} {
		who := k.member(name, name)
		k.membership(name, name, soon)
		a := s.startAs(t, InProcess, name, who)
		agents = append(agents, a)
	}
	for _, a := range agents {
		if err := alice.WaitPeer(bounded(t), a.id); err != nil {
			t.Fatal(err)
		}
	}
	k.membership("carol", "carol", time.Now().Add(time.Hour))
	if e := alice.waitEvents(t, "bob", 0, 2)[1]; e.Connected || time.Now().Before(soon.Truncate(time.Second)) {
		t.Errorf("event %+v", e)
	}
	alice.reports.Wait(t, "alice says why", func(all []error) bool {
		return slices.ContainsFunc(all, func(err error) bool {
			return isIdentity(err) && strings.Contains(err.Error(), "its membership expired at "+soon.UTC().Format(time.RFC3339))
		})
	})
	if err := alice.Connect(bounded(t), "bob"); !isIdentity(err) || !strings.Contains(err.Error(), "not a member: the statement expired") {
		t.Errorf("Connect: %v", err)
	}
	works(t, alice, agents[1])
	if events := alice.eventsOf("carol", 0); len(events) != 1 {
		t.Errorf("carol: %+v", events)
	}
}

// A key that is revoked ends the link.
func TestRevokedWhileConnected(t *testing.T) {
	t.Parallel()
	m, k := newMallory(t), newKeyring(t)
	s := &stage{url: m.url}
	who := k.bare("alice")
	who.RevokedFile = k.write("revoked", "# none yet\n")
	alice := s.startAs(t, InProcess, "alice", who)
	bob := s.startAs(t, InProcess, "bob", k.bare("bob"))
	carol := s.startAs(t, InProcess, "carol", k.bare("carol"))
	for _, a := range []*agent{bob, carol} {
		if err := alice.WaitPeer(bounded(t), a.id); err != nil {
			t.Fatal(err)
		}
	}
	k.write("revoked", "# lost\n"+k.public("bob").String()+" # bob's\n")
	alice.waitEvents(t, "bob", 0, 2)
	alice.reports.Wait(t, "alice says why", func(all []error) bool {
		return slices.ContainsFunc(all, func(err error) bool { return isIdentity(err) && strings.Contains(err.Error(), "its key is revoked") })
	})
	if err := bob.Connect(bounded(t), "carol"); err != nil {
		t.Error(err)
	}
	if err := alice.Connect(bounded(t), "bob"); !isIdentity(err) || !strings.Contains(err.Error(), "its key is revoked") {
		t.Errorf("Connect: %v", err)
	}
	k.write("revoked", "damaged\n") // what it said before counts
	alice.reports.Wait(t, "alice says what is wrong with the file", func(all []error) bool {
		return slices.ContainsFunc(all, func(err error) bool { return strings.Contains(err.Error(), who.RevokedFile+": line 1") })
	})
	works(t, alice, carol)
}

// Agents of one host share a file of known peers, in one process and in several.
func TestSharedKnownPeers(t *testing.T) {
	s, k := newStage(t, ""), newKeyring(t)
	modes := []Mode{InProcess, InProcess}
	if len(modesHere()) > 1 {
		modes = append(modes, SelfExec, SelfExec)
	}
	names := []string{"alice", "bob", "carol", "dave"}[:len(modes)]
	var agents []*agent
	for i, name := range names {
		who := k.known(name, true)
		who.KnownPeersFile = k.path("shared.known")
		agents = append(agents, s.startAs(t, modes[i], name, who))
	}
	stranger := s.startAs(t, InProcess, "stranger", k.bare("stranger"))
	for _, a := range agents {
		for _, b := range append(agents, stranger) {
			if a == b {
				continue
			}
			if err := a.WaitPeer(bounded(t), b.id); err != nil {
				t.Fatal(err)
			}
		}
	}
	mesh, all, err := identity.ReadKnownPeers(k.path("shared.known"))
	if err != nil || mesh != meshName || len(all) != len(names)+1 {
		t.Errorf("the file of mesh %q has %v, %v", mesh, all, err)
	}
	for _, name := range append(names, "stranger") {
		if all[name] != k.public(name) {
			t.Errorf("the file has %v for %s", all[name], name)
		}
	}
	// What one agent has learnt, all know.
	stranger.end(t)
	for _, a := range agents {
		a.waitEvents(t, "stranger", 0, 2)
	}
	s.startAs(t, InProcess, "stranger", k.bare("impostor"))
	for _, a := range agents {
		a.reports.Wait(t, a.id+" refuses the impostor", func(all []error) bool {
			return slices.ContainsFunc(all, func(err error) bool { return isIdentity(err) && strings.Contains(err.Error(), "its key has changed") })
		})
	}
}

// An agent with a key is one peer only, whatever signaling says.
func TestOwnID(t *testing.T) {
	for name, tc := range map[string]struct {
		who    func(k *keyring) Identity
		before string // the id that it has had with the same key
		given  func(k *keyring) string
		says   func(k *keyring) string // "" if the id is right
	}{
		"a member": {
			who: func(k *keyring) Identity { return k.member("alice", "alice") }, given: func(*keyring) string { return "bob" },
			says: func(k *keyring) string { return k.path("alice.member") + ` is about "alice"` },
		},
		"one with another id before": {
			who: func(k *keyring) Identity { return k.bare("alice") }, before: "alice", given: func(*keyring) string { return "bob" },
			says: func(k *keyring) string { return k.key("alice") + ".ids" },
		},
		"the same id as before": {
			who: func(k *keyring) Identity { return k.bare("alice") }, before: "alice", given: func(*keyring) string { return "alice" },
			says: func(*keyring) string { return "" },
		},
		"its certified id": {
			who: func(k *keyring) Identity { return k.bare("alice") }, before: "alice", given: func(k *keyring) string { return k.public("alice").ID() },
			says: func(*keyring) string { return "" },
		},
		"another's certified id": {
			who: func(k *keyring) Identity { return k.bare("alice") }, given: func(k *keyring) string { return k.public("bob").ID() },
			says: func(*keyring) string { return "certifies a key, and this agent has another one or none" },
		},
		"a certified id without a key": {
			who: func(*keyring) Identity { return Identity{} }, given: func(k *keyring) string { return k.public("bob").ID() },
			says: func(*keyring) string { return "certifies a key, and this agent has another one or none" },
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, k := newMallory(t), newKeyring(t)
			who := tc.who(k)
			cfg := Config{SignalingURL: m.url, APIKey: "key", WaitSignaling: true, Identity: who}
			if tc.before != "" {
				m.rename("key", tc.before)
				before, err := New(bounded(t), cfg)
				if err != nil {
					t.Fatal(err)
				}
				_ = before.Close()
			}
			m.rename("key", tc.given(k))
			says := tc.says(k)
			a, err := New(bounded(t), cfg)
			if says == "" {
				if err != nil {
					t.Fatal(err)
				}
				_ = a.Close()
				return
			}
			if !isIdentity(err) || !strings.Contains(err.Error(), says) || strings.Count(err.Error(), "mesh: ") != 1 {
				t.Errorf("New: %v, want %q", err, says)
			}
			cfg.WaitSignaling = false
			changed := make(chan SignalingStatus, 16)
			cfg.OnSignaling = func(st SignalingStatus) { changed <- st }
			if a, err = New(bounded(t), cfg); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = a.Close() }()
			for st := range changed {
				if st.Err == nil {
					continue
				}
				if !isIdentity(st.Err) || !strings.Contains(st.Err.Error(), says) || !isIdentity(a.Signaling().Err) {
					t.Errorf("signaling: %+v", st)
				}
				break
			}
		})
	}
}

const knownHeader = "# known peers of mesh \"" + meshName + "\"\n"

// New refuses files that it cannot trust or use, and names the field.
func TestIdentityFiles(t *testing.T) {
	hour := time.Now().Add(time.Hour)
	chown := func(t *testing.T, path string) {
		if os.Geteuid() != 0 {
			t.Skip("only root gives files away")
		}
		if err := os.Chown(path, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	chmod := func(t *testing.T, path string, mode fs.FileMode) {
		if runtime.GOOS == "windows" {
			t.Skip("files have no such modes here")
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		field, says string
		who         func(t *testing.T, k *keyring) Identity
	}{
		"damaged known peers": {"KnownPeersFile", "line 2", func(_ *testing.T, k *keyring) Identity {
			k.write("alice.known", knownHeader+"bob notakey\n")
			return k.known("alice", false)
		}},
		"known peers cut short": {"KnownPeersFile", "line 2", func(_ *testing.T, k *keyring) Identity {
			k.write("alice.known", knownHeader+"bob "+k.public("bob").String()[:20])
			return k.known("alice", false)
		}},
		"known peers of another mesh": {"KnownPeersFile", `"other"`, func(_ *testing.T, k *keyring) Identity {
			k.write("alice.known", "# known peers of mesh \"other\"\n")
			return k.known("alice", false)
		}},
		"two keys of one peer": {"KnownPeersFile", "another key", func(_ *testing.T, k *keyring) Identity {
			k.write("alice.known", knownHeader+"bob "+k.public("bob").String()+"\nbob "+k.public("carol").String()+"\n")
			return k.known("alice", false)
		}},
		"known peers of another user": {"KnownPeersFile", "belongs to uid 65534", func(t *testing.T, k *keyring) Identity {
			chown(t, k.write("alice.known", ""))
			return k.known("alice", false)
		}},
		"known peers that others can write": {"KnownPeersFile", "chmod 644", func(t *testing.T, k *keyring) Identity {
			chmod(t, k.write("alice.known", ""), 0o666)
			return k.known("alice", false)
		}},
		"known peers in no directory": {"KnownPeersFile", "make the directory", func(_ *testing.T, k *keyring) Identity {
			who := k.known("alice", false)
			who.KnownPeersFile = k.path("none/known")
			return who
		}},
		"known peers that are a directory": {"KnownPeersFile", "not a regular file", func(_ *testing.T, k *keyring) Identity {
			who := k.known("alice", false)
			who.KnownPeersFile = k.dir
			return who
		}},
		"key that others can read": {"KeyFile", "chmod 600", func(t *testing.T, k *keyring) Identity {
			chmod(t, k.key("alice"), 0o640)
			return k.bare("alice")
		}},
		"key of another user": {"KeyFile", "belongs to uid 65534", func(t *testing.T, k *keyring) Identity {
			chown(t, k.key("alice"))
			return k.bare("alice")
		}},
		"no key file": {"KeyFile", "mesh key new", func(_ *testing.T, k *keyring) Identity {
			return Identity{KeyFile: k.path("none")}
		}},
		"key that is none": {"KeyFile", "PEM", func(t *testing.T, k *keyring) Identity {
			path := k.write("junk", "junk")
			chmod(t, path, 0o600)
			return Identity{KeyFile: path}
		}},
		"expired membership": {"MembershipFile", "expired", func(_ *testing.T, k *keyring) Identity {
			who := k.member("alice", "alice")
			k.membership("alice", "alice", time.Now().Add(-time.Second))
			return who
		}},
		"another's membership": {"MembershipFile", "another key", func(_ *testing.T, k *keyring) Identity {
			who := k.member("alice", "alice")
			who.MembershipFile = k.membership("bob", "alice", hour)
			return who
		}},
		"membership of another mesh": {"MembershipFile", `"other"`, func(_ *testing.T, k *keyring) Identity {
			who := k.member("alice", "alice")
			who.MeshName = "other"
			return who
		}},
		"membership by another root": {"MembershipFile", "not signed by a root", func(_ *testing.T, k *keyring) Identity {
			who := k.member("alice", "alice")
			who.Roots = []string{k.public("mallory").String()}
			return who
		}},
		"damaged membership": {"MembershipFile", "mesh key sign", func(_ *testing.T, k *keyring) Identity {
			who := k.member("alice", "alice")
			k.write("alice.member", "{")
			return who
		}},
		"no revoked file": {"RevokedFile", "make an empty one", func(_ *testing.T, k *keyring) Identity {
			return Identity{RevokedFile: k.path("none")}
		}},
		"damaged revoked file": {"RevokedFile", "want a public key", func(_ *testing.T, k *keyring) Identity {
			return Identity{RevokedFile: k.write("revoked", "# keys\nbob\n")}
		}},
		"revoked file that others can write": {"RevokedFile", "chmod 644", func(t *testing.T, k *keyring) Identity {
			who := Identity{RevokedFile: k.write("revoked", "")}
			chmod(t, who.RevokedFile, 0o646)
			return who
		}},
		"root that is no key": {"Roots", "base64", func(_ *testing.T, k *keyring) Identity {
			who := k.member("alice", "alice")
			who.Roots = []string{"bob"}
			return who
		}},
		"root for which anyone can sign": {"Roots", "small order", func(_ *testing.T, k *keyring) Identity {
			who := k.member("alice", "alice")
			who.Roots = []string{"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}
			return who
		}},
		"no membership file": {"MembershipFile", "mesh key sign", func(_ *testing.T, k *keyring) Identity {
			who := k.member("alice", "alice")
			who.MembershipFile = k.path("none")
			return who
		}},
		"long name of the mesh":       {"MeshName", "129 bytes", func(*testing.T, *keyring) Identity { return Identity{MeshName: strings.Repeat("x", 129)} }},
		"name that is not UTF-8":      {"MeshName", "not valid UTF-8", func(*testing.T, *keyring) Identity { return Identity{MeshName: "\xff\xfe"} }},
		"name with control character": {"MeshName", "U+000A", func(*testing.T, *keyring) Identity { return Identity{MeshName: "a\n"} }},

		"no such policy": {"Policy", "want off, known or member", func(*testing.T, *keyring) Identity { return Identity{Policy: "strict"} }},
		"roots, but no policy": {"Policy", "Roots", func(_ *testing.T, k *keyring) Identity {
			who := k.member("alice", "alice")
			who.Policy = ""
			return who
		}},
		"known peers, but no policy": {"Policy", "MESH_KNOWN_PEERS", func(_ *testing.T, k *keyring) Identity {
			who := k.known("alice", false)
			who.Policy = ""
			return who
		}},
		"off, and required":    {"Required", "off requires nothing", func(*testing.T, *keyring) Identity { return Identity{Required: true} }},
		"known without a file": {"KnownPeersFile", "empty", func(*testing.T, *keyring) Identity { return Identity{Policy: IdentityKnown} }},
		"member without roots": {"Roots", "empty", func(*testing.T, *keyring) Identity { return Identity{Policy: IdentityMember} }},
		"member without statement": {"MembershipFile", "empty", func(_ *testing.T, k *keyring) Identity {
			who := k.member("alice", "alice")
			who.MembershipFile = ""
			return who
		}},
		"statement without a key": {"KeyFile", "empty", func(_ *testing.T, k *keyring) Identity {
			return Identity{MembershipFile: k.membership("alice", "alice", hour)}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeyring(t)
			m, err := New(bounded(t), Config{SignalingURL: "ws://127.0.0.1:1/ws", Identity: tc.who(t, k)})
			if err == nil {
				_ = m.Close()
			}
			var config *ConfigError
			if !errors.As(err, &config) || config.Field != "Identity."+tc.field || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want one about Identity.%s that says %q", err, tc.field, tc.says)
			}
		})
	}
}

// What the environment says counts where the configuration says nothing.
func TestIdentityEnvironment(t *testing.T) {
	m, k := newMallory(t), newKeyring(t)
	who := k.member("alice", "alice")
	t.Chdir(k.dir) // paths may be relative
	for name, value := range map[string]string{
		"MESH_IDENTITY_KEY": filepath.Base(who.KeyFile), "MESH_NAME": meshName, "MESH_IDENTITY_POLICY": "member",
		"MESH_ROOTS": who.Roots[0] + "," + k.public("other root").String(), "MESH_MEMBERSHIP": filepath.Base(who.MembershipFile),
	} {
		t.Setenv(name, value)
	}
	s := &stage{url: m.url}
	alice := s.start(t, InProcess, "alice")
	bob := s.startAs(t, InProcess, "bob", k.member("bob", "bob"))
	(&pair{alice: alice, bob: bob}).meet(t)
	if key := bob.Peers()[0].Key; key != k.public("alice").String() {
		t.Errorf("key %q", key)
	}
	t.Setenv("MESH_IDENTITY_REQUIRED", "maybe")
	_, err := New(context.Background(), Config{})
	var config *ConfigError
	if !errors.As(err, &config) || config.Field != "Identity.Required" {
		t.Errorf("got %v", err)
	}
}
