package identity_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chatixia-ai/mesh/internal/identity"
)

// later is a time in the far future.
var later = time.Unix(4102444800, 0)

// statementText returns a file with a statement about a peer.
func statementText(t *testing.T, peer string) string {
	t.Helper()
	root, _ := seeded(9)
	_, key := seeded(1)
	text, err := json.Marshal(identity.NewStatement(root, "demo", peer, key, later))
	if err != nil {
		t.Fatal(err)
	}
	return string(text) + "\n"
}

// member makes an agent with a key and a statement, and settings to judge others by.
func member(t *testing.T, peer string, until time.Time) (s identity.Settings, public identity.PublicKey) {
	t.Helper()
	path, public := newKey(t)
	root, rootKey := seeded(9)
	file := filepath.Join(t.TempDir(), "member")
	if err := identity.NewStatement(root, "demo", peer, public, until).WriteFile(file); err != nil {
		t.Fatal(err)
	}
	return identity.Settings{KeyFile: path, MeshName: "demo", Policy: identity.Member, Roots: []string{rootKey.String()}, MembershipFile: file}, public
}

func TestMember(t *testing.T) {
	sa, keyA := member(t, "alice", later)
	sb, _ := member(t, "bob", later)
	a, b := open(t, sa), open(t, sb)
	proof, err := meet(a, b, "alice", "bob")
	if err != nil || proof.Key != keyA || !proof.Until.Equal(later) {
		t.Errorf("%+v, %v", proof, err)
	}
	_, err = meet(open(t, identity.Settings{KeyFile: sa.KeyFile, MeshName: "demo"}), b, "alice", "bob")
	wantError(t, err, "not a member", "no statement")
	_, err = meet(open(t, identity.Settings{}), b, "alice", "bob")
	wantError(t, err, "no identity", "requires one")
	_, err = meet(a, b, "carol", "bob")
	wantError(t, err, "not a member", `"alice"`)
}

// A root whose key is revoked vouches for nobody any more, not even for who is connected.
func TestRevokedRoot(t *testing.T) {
	sa, _ := member(t, "alice", later)
	sb, _ := member(t, "bob", later)
	_, rootKey := seeded(9)
	_, otherKey := seeded(8)
	sb.Roots = append(sb.Roots, otherKey.String())
	sb.RevokedFile = filepath.Join(t.TempDir(), "revoked")
	write(t, sb.RevokedFile, "# none\n", 0o600)
	a, b := open(t, sa), open(t, sb)
	proof, err := meet(a, b, "alice", "bob")
	if err != nil || proof.Root != rootKey {
		t.Fatalf("%+v, %v", proof, err)
	}
	write(t, sb.RevokedFile, rootKey.String()+"\n", 0o600)
	if _, err := b.Reload(); err != nil {
		t.Fatal(err)
	}
	wantError(t, b.Check(proof), "root", "revoked")
	_, err = meet(a, b, "alice", "bob")
	wantError(t, err, "root", "revoked")
}

// A statement counts only as the root has signed it, for the peer that shows it.
func TestStatementTampered(t *testing.T) {
	sa, _ := member(t, "alice", later)
	sb, keyB := member(t, "bob", later)
	a, b := open(t, sa), open(t, sb)
	_, rootKey := seeded(9)
	other, otherKey := seeded(8)
	la, lb := ends("alice", "bob")
	good := *a.Membership()
	for name, tc := range map[string]struct {
		change func(st *identity.Statement)
		want   string
	}{
		"nothing": {func(*identity.Statement) {}, ""},
		"mesh":    {func(st *identity.Statement) { st.Mesh = "" }, "about mesh"},
		"peer":    {func(st *identity.Statement) { st.PeerID = "alicf" }, "about \"alicf\""},
		"key":     {func(st *identity.Statement) { st.Key = keyB.String() }, "about another key"},
		"time":    {func(st *identity.Statement) { st.NotAfter++ }, "not signed by a root"},
		"no time": {func(st *identity.Statement) { st.NotAfter = 0 }, "expired"},
		"sig":     {func(st *identity.Statement) { st.Sig = b.Membership().Sig }, "not signed by a root"},
		"no sig":  {func(st *identity.Statement) { st.Sig = "" }, "not signed by a root"},
		"newline": {func(st *identity.Statement) { st.Sig += "\n" }, "not signed by a root"},
		"another root": {func(st *identity.Statement) {
			*st = identity.NewStatement(other, st.Mesh, st.PeerID, a.Key(), later)
		}, "not signed by a root"},
		"all of another member": {func(st *identity.Statement) { *st = *b.Membership() }, "about \"bob\""},
		"moved bytes":           {func(st *identity.Statement) { st.Mesh, st.PeerID = "demoa", "lice" }, "about mesh"},
	} {
		shown := a.Show(la)
		st := good
		tc.change(&st)
		shown.Member = &st
		_, err := b.Verify(lb, shown)
		if tc.want == "" {
			wantError(t, err)
		} else if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
		if valid := st.Verify([]identity.PublicKey{rootKey, otherKey}) == nil; valid != (name == "nothing" || strings.Contains(name, "another")) && name != "all of another member" {
			t.Errorf("%s: the signature by itself is right: %v", name, valid)
		}
	}
}

// A statement expires while a link is up, and a newer one in the file takes its place.
func TestStatementExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sa, keyA := member(t, "alice", time.Now().Add(time.Hour))
		sb, _ := member(t, "bob", later)
		a, b := open(t, sa), open(t, sb)
		proof, err := meet(a, b, "alice", "bob")
		wantError(t, err)
		time.Sleep(59 * time.Minute)
		wantError(t, b.Check(proof))

		root, _ := seeded(9)
		renewed := identity.NewStatement(root, "demo", "alice", keyA, time.Now().Add(2*time.Hour))
		wantError(t, renewed.WriteFile(sa.MembershipFile))
		st, err := a.Reload()
		if err != nil || st == nil || *st != renewed || *a.Membership() != renewed {
			t.Fatalf("after a renewal: %v, %v", st, err)
		}
		if st, err := a.Reload(); st != nil || err != nil {
			t.Errorf("after nothing: %v, %v", st, err)
		}
		time.Sleep(time.Minute)
		wantError(t, b.Check(proof), "expired")
		proof, err = b.Renew("alice", proof, st)
		wantError(t, err)
		wantError(t, b.Check(proof))
		time.Sleep(time.Hour + 59*time.Minute)
		wantError(t, b.Check(proof), "expired")
		_, err = meet(a, b, "alice", "bob")
		wantError(t, err, "expired")
		_, err = identity.Open(sa)
		wantError(t, err, "MembershipFile", sa.MembershipFile, "expired", "mesh key sign")
	})
}

// What cannot be used does not take the place of what was read before, and the error says what is wrong.
func TestReloadKeepsStatement(t *testing.T) {
	sa, keyA := member(t, "alice", later)
	a := open(t, sa)
	was := *a.Membership()
	root, _ := seeded(9)
	other, _ := seeded(8)
	_, keyB := seeded(2)
	text := func(st identity.Statement) string {
		raw, err := json.Marshal(st)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	after := later.Add(time.Hour)
	for _, tc := range []struct{ text, want string }{
		{"", "not a statement"},
		{"{}", "not a statement"},
		{read(t, sa.MembershipFile) + "{}", "not a statement"},
		{text(identity.NewStatement(root, "demo", "bob", keyA, after)), `"bob", and this agent is "alice"`},
		{text(identity.NewStatement(root, "omed", "alice", keyA, after)), `"omed"`},
		{text(identity.NewStatement(root, "demo", "alice", keyB, after)), "another key"},
		{text(identity.NewStatement(other, "demo", "alice", keyA, after)), "not signed by a root"},
		{text(identity.NewStatement(root, "demo", "alice", keyA, time.Unix(1, 0))), "expired"},
	} {
		write(t, sa.MembershipFile, tc.text, 0o600)
		st, err := a.Reload()
		wantError(t, err, sa.MembershipFile, tc.want)
		if st != nil || *a.Membership() != was {
			t.Errorf("%q: the statement is %v", tc.text, a.Membership())
		}
	}
	if err := os.Remove(sa.MembershipFile); err != nil {
		t.Fatal(err)
	}
	_, err := a.Reload()
	wantError(t, err, sa.MembershipFile)
	// An older one is none that is newer, and no fault.
	write(t, sa.MembershipFile, text(identity.NewStatement(root, "demo", "alice", keyA, later.Add(-time.Hour))), 0o600)
	if st, err := a.Reload(); st != nil || err != nil || *a.Membership() != was {
		t.Errorf("an older one: %v, %v", st, err)
	}
}

// A statement takes the place of an older one about the same peer, and of nothing else.
func TestWriteStatement(t *testing.T) {
	root, _ := seeded(9)
	_, key := seeded(1)
	dir := t.TempDir()
	path := filepath.Join(dir, "member")
	for _, until := range []time.Time{later, later.Add(time.Hour), later} {
		st := identity.NewStatement(root, "demo", "alice", key, until)
		wantError(t, st.WriteFile(path))
		if got, err := identity.ReadStatement(path); err != nil || got != st {
			t.Errorf("wrote %v, read %v, %v", st, got, err)
		}
	}
	if fi, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && fi.Mode() != 0o644 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	if list := names(t, dir); len(list) != 1 {
		t.Errorf("left %q", list)
	}
	keyFile, _ := newKey(t)
	for file, st := range map[string]identity.Statement{
		path:    identity.NewStatement(root, "demo", "bob", key, later),
		keyFile: identity.NewStatement(root, "demo", "alice", key, later),
		dir:     identity.NewStatement(root, "demo", "alice", key, later),
	} {
		wantError(t, st.WriteFile(file), file, "not replaced")
		if err := st.WriteFile(file); file != dir && !strings.Contains(err.Error(), "choose another file") || strings.Contains(err.Error(), "literal") {
			t.Errorf("%q does not say how to go on", err)
		}
	}
	wantError(t, identity.NewStatement(root, "omed", "alice", key, later).WriteFile(path), "not replaced", `"demo"`)
	if _, err := identity.ReadKey(keyFile); err != nil {
		t.Error(err)
	}
	wantError(t, identity.NewStatement(root, "demo", "alice", key, later).WriteFile(filepath.Join(dir, "no", "member")), "no")
}
