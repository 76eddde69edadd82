//go:build linux || darwin

package interop

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/identity"
)

// A mint gives the parties of a test keys and statements.
type mint struct {
	t    *testing.T
	st   *stage
	dir  string
	root ed25519.PrivateKey
}

func newMint(t *testing.T, st *stage) *mint {
	t.Helper()
	_, root, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &mint{t: t, st: st, dir: t.TempDir(), root: root}
}

const meshName = "interop"

// statement returns one about a peer that ends in an hour.
func (m *mint) statement(id, key string) []byte {
	m.t.Helper()
	public, err := identity.ParsePublicKey(key)
	if err != nil {
		m.t.Fatal(err)
	}
	b, err := json.Marshal(identity.NewStatement(m.root, meshName, id, public, time.Now().Add(time.Hour)))
	if err != nil {
		m.t.Fatal(err)
	}
	return b
}

// agent returns the identity of an agent with a sidecar, whose key and statement it makes.
func (m *mint) agent(id string, policy mesh.IdentityPolicy) mesh.Identity {
	m.t.Helper()
	i := mesh.Identity{
		KeyFile: filepath.Join(m.dir, fmt.Sprintf("%s-%d", id, time.Now().UnixNano())), MeshName: meshName, Policy: policy,
	}
	key, err := identity.NewKeyFile(i.KeyFile)
	if err != nil {
		m.t.Fatal(err)
	}
	switch policy {
	case mesh.IdentityKnown:
		i.KnownPeersFile = filepath.Join(m.dir, id+"-known")
	case mesh.IdentityMember:
		i.Roots, i.MembershipFile = []string{identity.Public(m.root).String()}, i.KeyFile+".member"
		if err := os.WriteFile(i.MembershipFile, m.statement(id, key.String()), 0o600); err != nil {
			m.t.Fatal(err)
		}
	}
	return i
}

// environ is the same as variables.
func environ(i mesh.Identity) []string {
	return []string{
		"MESH_IDENTITY_KEY=" + i.KeyFile, "MESH_NAME=" + i.MeshName, "MESH_IDENTITY_POLICY=" + string(i.Policy),
		"MESH_KNOWN_PEERS=" + i.KnownPeersFile, "MESH_ROOTS=" + strings.Join(i.Roots, ","), "MESH_MEMBERSHIP=" + i.MembershipFile,
	}
}

// kind returns a kind of program with an identity.
func (m *mint) kind(name string, policy mesh.IdentityPolicy) *kind {
	k := *kindNamed(name)
	switch name {
	case "Chromium":
		k.start = func(t *testing.T, _ *stage, id string) console { return m.page(id, policy) }
	case "Python", "Node":
		k.start = func(t *testing.T, st *stage, id string) console {
			return runAgent(t, append(st.environ(id), environ(m.agent(id, policy))...), id, scripts[name][0], scripts[name][1])
		}
	default:
		mode := map[string]mesh.Mode{"InProcess": mesh.InProcess, "SelfExec": mesh.SelfExec, "Binary": mesh.Binary}[name]
		k.start = func(t *testing.T, st *stage, id string) console {
			cfg := mesh.Config{Mode: mode, SignalingURL: st.signalingURL(), APIKey: id, Identity: m.agent(id, policy)}
			if mode == mesh.Binary {
				cfg.Binary = theSidecar(t)
			}
			return newGoParty(t, cfg, nil)
		}
	}
	return &k
}

// nobody is a program of the mesh without a key.
func nobody() *kind {
	k := *kindNamed("InProcess")
	k.start = func(t *testing.T, st *stage, id string) console {
		return newGoParty(t, mesh.Config{SignalingURL: st.signalingURL(), APIKey: id, Identity: mesh.Identity{MeshName: meshName}}, nil)
	}
	return &k
}

// page opens the page. The root has signed its key before it joins, if members need that.
func (m *mint) page(id string, policy mesh.IdentityPolicy) *pageParty {
	m.t.Helper()
	settings := url.Values{"name": {id}, "mesh": {meshName}, "policy": {string(policy)}}
	if policy == mesh.IdentityMember {
		settings.Set("root", identity.Public(m.root).String())
		key := m.store(id, `return own.key`)
		m.store(id, `await own.join(`+string(m.statement(id, key))+`)`)
	}
	return openPage(m.t, m.st, settings)
}

// store runs a script in a page of the same origin, which is not on the mesh. own is the identity of the page with that
// name, keys the store.
func (m *mint) store(name, script string) (result string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	page, err := browser(m.t).Open(ctx, m.st.web.URL+"/errors.js")
	if err != nil {
		m.t.Fatal(err)
	}
	err = page.Eval(ctx, fmt.Sprintf(`(async () => {
		const [{ Identity }, { KeyStore }] = [await import("/identity.js"), await import("/keystore.js")];
		const keys = await KeyStore.open();
		const own = await Identity.open({ name: %q, mesh: %q }, async () => keys);
		%s
	})()`, name, meshName, script), &result)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := page.Close(ctx); err != nil {
		m.t.Fatal(err)
	}
	return result
}

// hasKey blocks until a party has shown the key of another one, and returns it.
func (p *party) hasKey(nth int, peer string) string {
	p.t.Helper()
	prefix := peer + " has key "
	return strings.TrimPrefix(p.find(nth, "the key of "+peer, func(l string) bool { return strings.HasPrefix(l, prefix) }), prefix)
}

// refuses blocks until a party has said why it refuses another one.
func (p *party) refuses(why string) {
	p.t.Helper()
	p.find(1, "a refusal: "+why, func(l string) bool {
		return strings.HasPrefix(l, "error: ") && strings.Contains(l, "identity") && strings.Contains(l, why)
	})
}

// says returns how many lines of a party have all these texts.
func (p *party) says(texts ...string) (n int) {
	for _, l := range p.said().all() {
		if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(l, text) }) {
			n++
		}
	}
	return n
}

// TestMembers: members of a mesh in all languages link to each other and show each other's keys, and a program that
// knows no identity is refused.
func TestMembers(t *testing.T) {
	for _, pair := range [][2]string{
		{"InProcess", "Python"}, {"Node", "InProcess"}, {"Python", "Node"}, {"Chromium", "InProcess"}, {"InProcess", "Chromium"},
		{"Chromium", "SelfExec"}, {"Node", "Chromium"}, {"Chromium", "Python"}, {"Chromium", "Chromium"},
	} {
		t.Run(pair[0]+"-"+pair[1], func(t *testing.T) {
			if strings.Contains(pair[0]+pair[1], "Chromium") {
				full(t)
			}
			t.Parallel()
			st := newStage(t)
			m := newMint(t, st)
			ann := st.enter(t, m.kind(pair[0], mesh.IdentityMember), "ann")
			bob := st.enter(t, m.kind(pair[1], mesh.IdentityMember), "bob")
			if a, b := ann.hasKey(1, "bob"), bob.hasKey(1, "ann"); a == b {
				t.Errorf("both have key %s", a)
			}
			ann.pings(bob, 1)
			bob.pings(ann, 1)

			eve := st.enter(t, nobody(), "eve")
			ann.refuses("it has shown no identity")
			bob.refuses("it has shown no identity")
			eve.leave()
			fay := st.enter(t, newMint(t, st).kind("InProcess", mesh.IdentityMember), "fay") // of another root
			const other = "not signed by a root"
			fay.until("one of the two refuses each link", func() bool { // it may close the link before the other one can
				return fay.says(`"ann"`, other)+ann.says("fay", other) > 0 && fay.says(`"bob"`, other)+bob.says("fay", other) > 0
			})
			for _, p := range []*party{ann, bob} {
				if n := p.times("+ eve") + p.times("+ fay"); n > 0 {
					t.Errorf("%s (%s) was linked to strangers %d times", p.id, p.name, n)
				}
			}
		})
	}
}

// TestChangedKey: what was known of a peer is not taken from another one, by a page and by an agent.
func TestChangedKey(t *testing.T) {
	full(t)
	for _, changes := range []string{"InProcess", "Python", "Node", "Chromium"} {
		for _, keeps := range []string{"InProcess", "Python", "Node", "Chromium"} {
			if changes != "Chromium" && keeps != "Chromium" && changes != keeps {
				continue
			}
			t.Run(changes+"-"+keeps, func(t *testing.T) {
				t.Parallel()
				st := newStage(t)
				m := newMint(t, st)
				bob := st.enter(t, m.kind(keeps, mesh.IdentityKnown), "bob")
				ann := st.enter(t, m.kind(changes, mesh.IdentityOff), "ann")
				key := bob.hasKey(1, "ann")
				ann.await(1, "+ bob")
				ann.leave()
				bob.await(1, "- ann")
				if changes == "Chromium" { // the same key first: it is kept
					ann = st.enter(t, m.kind(changes, mesh.IdentityOff), "ann")
					if again := bob.hasKey(2, "ann"); again != key {
						t.Errorf("the key was %s and is %s after the page was loaded again", key, again)
					}
					ann.await(1, "+ bob")
					ann.leave()
					bob.await(2, "- ann")
					m.store("ann", `await keys.delete("own", ["`+meshName+`", "ann"])`)
				}
				ann = st.enter(t, m.kind(changes, mesh.IdentityOff), "ann")
				bob.refuses("its key has changed")
				ann.leave()
				st.enter(t, nobody(), "ann")
				bob.refuses("it has shown no identity")
				if n := bob.times("+ ann"); changes == "Chromium" && n != 2 || changes != "Chromium" && n != 1 {
					t.Errorf("bob linked to ann %d times", n)
				}
			})
		}
	}
}

// TestSignedRestart: a page repairs a link to an agent with identities: each takes the other's signed description.
func TestSignedRestart(t *testing.T) {
	full(t)
	st := newStage(t)
	m := newMint(t, st)
	ann := st.enter(t, m.kind("InProcess", mesh.IdentityMember), "ann")
	bob := st.enter(t, m.kind("Chromium", mesh.IdentityMember), "bob")
	ann.hasKey(1, "bob")
	bob.hasKey(1, "ann")
	page := bob.console.(*pageParty)
	eval := func(script string) (result string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := page.page.Eval(ctx, script, &result); err != nil {
			t.Fatal(err)
		}
		return result
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := page.page.Before(ctx, `window.RTCPeerConnection = class extends RTCPeerConnection {
		constructor(...args) {
			super(...args);
			window.latest = this;
		}
		get connectionState() {
			return this.says ?? super.connectionState;
		}
	}`); err != nil {
		t.Fatal(err)
	}
	if err := page.reload(); err != nil {
		t.Fatal(err)
	}
	ann.hasKey(2, "bob")
	bob.hasKey(2, "ann")
	bob.pings(ann, 1)
	// The page came second, so it has offered, and it is up to the page to offer again.
	ufrag := `/a=ice-ufrag:(\S+)/.exec(latest.remoteDescription.sdp)[1]`
	before := eval(ufrag)
	after := eval(`(async () => {
		latest.says = "disconnected";
		latest.onconnectionstatechange();
		while (` + ufrag + ` === ` + fmt.Sprintf("%q", before) + `) await new Promise((resolve) => setTimeout(resolve, 10));
		latest.says = undefined;
		return ` + ufrag + `;
	})()`)
	t.Logf("ICE user fragment of the agent: first %s, then %s", before, after)
	bob.pings(ann, 2)
	ann.pings(bob, 3)
	if n := ann.times("- bob"); n != 1 { // by the reload
		t.Errorf("ann lost bob %d times", n)
	}
}
