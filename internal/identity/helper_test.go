package identity_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh/internal/identity"
)

// newKey makes a key in a file of its own.
func newKey(t *testing.T) (path string, public identity.PublicKey) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "key")
	public, err := identity.NewKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, public
}

// seeded returns a key that is the same in every run.
func seeded(seed byte) (ed25519.PrivateKey, identity.PublicKey) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	return key, identity.Public(key)
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask is, and if there was such a file
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// names returns what is in a directory.
func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func open(t *testing.T, s identity.Settings) *identity.Identity {
	t.Helper()
	id, err := identity.Open(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// wantError fails unless err says all of want; without any it wants none.
func wantError(t *testing.T, err error, want ...string) {
	t.Helper()
	if (err != nil) != (len(want) > 0) {
		t.Errorf("error %v, want one about %q", err, want)
		return
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

// ends returns a link between two peers, as each of them sees it.
func ends(offerer, answerer string) (a, b identity.Link) {
	a = identity.Link{Offerer: true, Own: offerer, Other: answerer,
		OwnCert: sha256.Sum256([]byte("A")), OtherCert: sha256.Sum256([]byte("B")), OwnSession: "sa", OtherSession: "sb"}
	b = identity.Link{Own: a.Other, Other: a.Own, OwnCert: a.OtherCert, OtherCert: a.OwnCert, OwnSession: a.OtherSession, OtherSession: a.OwnSession}
	return a, b
}

// meet returns what peer b says of peer a, which shows its identity.
func meet(a, b *identity.Identity, idA, idB string) (identity.Proof, error) {
	la, lb := ends(idA, idB)
	return b.Verify(lb, a.Show(la))
}
