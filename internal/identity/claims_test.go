package identity_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chatixia-ai/mesh/internal/identity"
)

// The first id that a key is given stays its id: in this process, in later ones, and for each mesh by itself.
func TestClaim(t *testing.T) {
	path, _ := newKey(t)
	demo, other := identity.Settings{KeyFile: path, MeshName: "demo"}, identity.Settings{KeyFile: path, MeshName: `o "t" her`}
	first := open(t, demo)
	wantError(t, first.Claim("alice"))
	wantError(t, first.Claim("alice"))
	wantError(t, first.Claim("bob"), `"bob"`, `"alice"`, path+".ids", "renamed")
	wantError(t, open(t, demo).Claim("bob"), `"alice"`)
	wantError(t, open(t, demo).Claim("alice"))

	wantError(t, open(t, other).Claim("b o\n\"b"))
	wantError(t, open(t, other).Claim("alice"), `"b o\n\"b"`)
	wantError(t, open(t, other).Claim("b o\n\"b"))
	wantError(t, open(t, demo).Claim("alice"))
	if want := "\"demo\" \"alice\"\n\"o \\\"t\\\" her\" \"b o\\n\\\"b\"\n"; read(t, path+".ids") != want {
		t.Errorf("the file is\n%s\nwant\n%s", read(t, path+".ids"), want)
	}
	wantError(t, open(t, identity.Settings{MeshName: "demo"}).Claim("anyone")) // signs for nobody
}

// OwnID is the id of the claim, or of the statement, and asks for neither to be made.
func TestOwnID(t *testing.T) {
	wantOwn := func(id *identity.Identity, want string, known bool) {
		t.Helper()
		if own, is := id.OwnID(); own != want || is != known {
			t.Errorf("own id %q, known %t, want %q, %t", own, is, want, known)
		}
	}
	wantOwn(open(t, identity.Settings{}), "", true) // any
	path, _ := newKey(t)
	settings := identity.Settings{KeyFile: path, MeshName: "demo"}
	wantOwn(open(t, settings), "", false)
	if _, err := os.Stat(path + ".ids"); !os.IsNotExist(err) {
		t.Errorf("OwnID has made the file: %v", err)
	}
	wantError(t, open(t, settings).Claim("alice"))
	wantOwn(open(t, settings), "alice", true)
	write(t, path+".ids", "damaged\n", 0o600)
	wantOwn(open(t, settings), "", false)
}

// A key beside which nothing can be written, as in a directory that is mounted read-only, keeps the id that it has.
func TestClaimReadOnly(t *testing.T) {
	path, _ := newKey(t)
	if err := os.Mkdir(path+".ids.lock", 0o700); err != nil { // so that root cannot either
		t.Fatal(err)
	}
	wantError(t, open(t, identity.Settings{KeyFile: path}).Claim("alice"), "key.ids.lock", "membership statement")
	write(t, path+".ids", "\"\" \"alice\"\n", 0o600)
	wantError(t, open(t, identity.Settings{KeyFile: path}).Claim("alice"))
	wantError(t, open(t, identity.Settings{KeyFile: path}).Claim("bob"), `"alice"`)
}

// What is in the file and cannot be read is not lost, and nothing is claimed meanwhile.
func TestClaimDamaged(t *testing.T) {
	for _, text := range []string{"alice\n", "\"\" \"\"\n", "\"\" \"alice\n", "\"\" \"alice\" \"bob\"\n", "\"demo\" \"a\"\n\x00\x00\x00\x00\n", " \"\" \"alice\"\n"} {
		path, _ := newKey(t)
		write(t, path+".ids", text, 0o600)
		wantError(t, open(t, identity.Settings{KeyFile: path}).Claim("mallory"), path+".ids", "line ")
		if got := read(t, path+".ids"); got != text {
			t.Errorf("%q has become %q", text, got)
		}
	}
	for _, text := range []string{"", "\n", "\"other\" \"bob\"", "\"other\" \"bob\"\r\n\r\n"} { // as editors leave it
		path, _ := newKey(t)
		write(t, path+".ids", text, 0o600)
		wantError(t, open(t, identity.Settings{KeyFile: path}).Claim("alice"))
		wantError(t, open(t, identity.Settings{KeyFile: path}).Claim("mallory"), `"alice"`)
		if strings.Contains(text, "bob") {
			wantError(t, open(t, identity.Settings{KeyFile: path, MeshName: "other"}).Claim("bob"))
		}
	}
}

// With a statement the key signs for the peer that it is about, and no file is made.
func TestClaimWithStatement(t *testing.T) {
	path, public := newKey(t)
	root, _ := seeded(9)
	member := filepath.Join(t.TempDir(), "member")
	if err := identity.NewStatement(root, "demo", "alice", public, later).WriteFile(member); err != nil {
		t.Fatal(err)
	}
	id := open(t, identity.Settings{KeyFile: path, MeshName: "demo", MembershipFile: member})
	wantError(t, id.Claim("bob"), `"bob"`, `"alice"`, member)
	wantError(t, id.Claim("alice"))
	if list := names(t, filepath.Dir(path)); len(list) != 1 {
		t.Errorf("the directory of the key has %q", list)
	}
}

// Of many that claim different ids at once with one key, all end up with one id.
func TestClaimRace(t *testing.T) {
	path, _ := newKey(t)
	var wg sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		id := open(t, identity.Settings{KeyFile: path}) // each as in a process of its own
		wg.Go(func() { errs[i] = id.Claim(fmt.Sprint("peer", i)) })
	}
	wg.Wait()
	won := 0
	for i, err := range errs {
		if err == nil {
			won++
			wantError(t, open(t, identity.Settings{KeyFile: path}).Claim(fmt.Sprint("peer", i)))
		}
	}
	if won != 1 {
		t.Errorf("%d ids were given: %v", won, errs)
	}
}
