package identity_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/identity"
)

func openKnown(t *testing.T, path, mesh string) *identity.KnownPeers {
	t.Helper()
	k, err := identity.OpenKnownPeers(path, mesh)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestPin(t *testing.T) {
	_, keyA := seeded(1)
	_, keyB := seeded(2)
	path := filepath.Join(t.TempDir(), "known")
	k, shared := openKnown(t, path, "demo"), openKnown(t, path, "demo") // as in another process
	if _, known, err := k.Lookup("alice"); known || err != nil {
		t.Errorf("known before: %v, %v", known, err)
	}
	wantError(t, k.Pin("alice", keyA))
	wantError(t, k.Pin("alice", keyA))
	wantError(t, k.Pin("alice", keyB), "changed", keyA.String(), keyB.String(), path, "mesh key known forget")
	wantError(t, shared.Pin("alice", keyB), "changed")
	wantError(t, shared.Pin("bob", keyB))
	if key, known, err := k.Lookup("bob"); key != keyB || !known || err != nil {
		t.Errorf("bob is %v, %v, %v", key, known, err)
	}
	if want := "# known peers of mesh \"demo\"\nalice " + keyA.String() + "\nbob " + keyB.String() + "\n"; read(t, path) != want {
		t.Errorf("the file is\n%s\nwant\n%s", read(t, path), want)
	}
	if known, err := shared.Forget("carol"); known || err != nil {
		t.Errorf("forgot carol: %v, %v", known, err)
	}
	if known, err := shared.Forget("alice"); !known || err != nil {
		t.Errorf("forgot alice: %v, %v", known, err)
	}
	wantError(t, k.Pin("alice", keyB))
	wantError(t, k.Pin("alice", keyA), "changed")
	mesh, all, err := identity.ReadKnownPeers(path)
	if want := map[string]identity.PublicKey{"alice": keyB, "bob": keyB}; mesh != "demo" || !maps.Equal(all, want) || err != nil {
		t.Errorf("%q, %v, %v", mesh, all, err)
	}
	if fi, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && fi.Mode().Perm()&0o077 != 0 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

// Who is accepted is said in docs/protocol.md, "Identity".
func TestKnownPolicy(t *testing.T) {
	pathA, _ := newKey(t)
	pathB, _ := newKey(t)
	a, b, none := open(t, identity.Settings{KeyFile: pathA}), open(t, identity.Settings{KeyFile: pathB}), open(t, identity.Settings{})
	settings := identity.Settings{Policy: identity.Known, KnownPeersFile: filepath.Join(t.TempDir(), "known")}
	judge := open(t, settings)
	settings.Required = true
	strict := open(t, settings)

	_, err := meet(none, strict, "alice", "judge")
	wantError(t, err, "requires one")
	_, err = meet(none, judge, "alice", "judge")
	wantError(t, err) // not pinned
	_, err = meet(a, judge, "alice", "judge")
	wantError(t, err)
	_, err = meet(b, judge, "alice", "judge")
	wantError(t, err, "changed")
	_, err = meet(none, judge, "alice", "judge")
	wantError(t, err, "no identity", settings.KnownPeersFile)
	_, err = meet(b, strict, "alice", "judge")
	wantError(t, err, "changed")
	_, err = meet(a, strict, "alice", "judge")
	wantError(t, err)
	_, err = meet(b, strict, "bob", "judge")
	wantError(t, err)
}

// Whatever an id is made of, it stays one id, and no other.
func TestPinStrangeIDs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "known")
	mesh := "d \"e\"\nm#o"
	k := openKnown(t, path, mesh)
	ids := []string{"a", "a b", " a", "a ", "\ta", "a\tb", `"a"`, `a"`, `"`, `\`, `\n`, "\n", "a\n", "\r", "a\r", "#", "#a", "a#", "# known peers of mesh \"x\"",
		"ä", "a\u0308", "日本", "\u00a0", "\u2028", "\u3000", "\u202e", "\ufeff", "\ufffd", "\xff", "\xff\xfe", "\x00", "\x1b[2J", "'", "$(x)", "🂡", strings.Repeat("x", 256)}
	want := make(map[string]identity.PublicKey)
	for i, id := range ids {
		_, want[id] = seeded(byte(i))
		wantError(t, k.Pin(id, want[id]))
	}
	for i, id := range ids {
		_, other := seeded(byte(i + 1))
		wantError(t, openKnown(t, path, mesh).Pin(id, other), "changed")
	}
	got, all, err := identity.ReadKnownPeers(path)
	if err != nil || got != mesh || !maps.Equal(all, want) {
		t.Errorf("mesh %q, %v, %v", got, all, err)
	}
	if lines := strings.Count(read(t, path), "\n"); lines != len(ids)+1 {
		t.Errorf("%d lines for %d ids", lines, len(ids))
	}
}

// A file that cannot be read as a whole is not read at all, and not written: an id that is missing would be pinned anew.
func TestKnownDamaged(t *testing.T) {
	_, keyA := seeded(1)
	_, keyB := seeded(2)
	head := "# known peers of mesh \"\"\n"
	good := head + "alice " + keyA.String() + "\n"
	for _, tc := range []struct{ text, want string }{
		{"", "line 1"},
		{"\n", "line 1"},
		{"alice " + keyA.String() + "\n", "line 1"},
		{"# known peers of mesh demo\n", "line 1"},
		{"# known peers of mesh \"demo\"\n", `"demo"`},
		{"# known peers of mesh \"\n", "line 1"},
		{"\xef\xbb\xbf" + good, "line 1"},
		{good[:len(good)-2], "line 2"},
		{good[:len(head)+3], "line 2"},
		{good + "alice\n", "line 3"},
		{good + "alice\t" + keyA.String() + "\n", "line 3"},
		{good + "alice " + keyB.String() + "\n", "line 3"},
		{good + "\"alice\" " + keyB.String() + "\n", "line 3"},
		{good + " " + keyB.String() + "\n", "line 3"},
		{good + "\"bob " + keyB.String() + "\n", "line 3"},
		{good + "bob " + keyB.String() + " " + keyB.String() + "\n", "line 3"},
		{good + "bob AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", "small order"},
		{good + strings.Repeat("\x00", 512), "line 3"},
	} {
		path := filepath.Join(t.TempDir(), "known")
		write(t, path, good, 0o600)
		k := openKnown(t, path, "")
		write(t, path, tc.text, 0o600)
		_, err := identity.OpenKnownPeers(path, "")
		wantError(t, err, path, tc.want)
		if !strings.Contains(err.Error(), "restore the file") && !strings.Contains(err.Error(), "choose a file") {
			t.Errorf("%q does not say how to go on", err)
		}
		for what, err := range map[string]error{"alice": k.Pin("alice", keyB), "bob": k.Pin("bob", keyB)} {
			if !errors.As(err, new(*identity.FileError)) {
				t.Errorf("%q: pinned %s: %v", tc.text, what, err)
			}
		}
		_, err = k.Forget("alice")
		wantError(t, err, path)
		if got := read(t, path); got != tc.text {
			t.Errorf("%q has become %q", tc.text, got)
		}
	}
	path := filepath.Join(t.TempDir(), "known")
	write(t, path, good, 0o600)
	k := openKnown(t, path, "")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := k.Pin("alice", keyB); !errors.As(err, new(*identity.FileError)) {
		t.Errorf("pinned in a file that is gone: %v", err)
	}
	// What people add is no damage.
	write(t, path, strings.ReplaceAll(head+"\n# the boss\n"+`"alice" `+keyA.String(), "\n", "\r\n"), 0o600)
	wantError(t, k.Pin("alice", keyA))
	wantError(t, k.Pin("alice", keyB), "changed")
}

// manyKnown returns a file with as many peers, whose ids are numbers and what is said.
func manyKnown(n int, tail string) string {
	_, key := seeded(1)
	var b bytes.Buffer
	b.WriteString("# known peers of mesh \"\"\n")
	for i := range n {
		fmt.Fprintf(&b, "%q %v\n", fmt.Sprintf("%06d", i)+tail, key)
	}
	return b.String()
}

// A full file takes no further peer, whether it is their number or the length of their ids that fills it, and goes on
// to count for those that it has.
func TestKnownFull(t *testing.T) {
	_, keyA := seeded(1)
	_, keyB := seeded(2)
	quotes := strings.Repeat(`"`, 250) // each takes two bytes
	for _, tc := range []struct {
		n    int
		tail string
	}{{10_000, ""}, {4<<20/(1+6+500+1+1+44+1) - 1, quotes}} {
		text := manyKnown(tc.n, tc.tail)
		path := filepath.Join(t.TempDir(), "known")
		write(t, path, text, 0o600)
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour)); err != nil { // so that it is read once
			t.Fatal(err)
		}
		k := openKnown(t, path, "")
		full := false
		for i := range 3 { // the first one may find room
			if err := k.Pin(fmt.Sprint(i, quotes), keyB); err != nil {
				full = true
				wantError(t, err, path, "full", "mesh key known forget")
			}
		}
		if !full {
			t.Errorf("beside %d peers there was room for all", tc.n)
		}
		again := openKnown(t, path, "") // it can still be read
		old := "000000" + tc.tail
		wantError(t, again.Pin(old, keyA))
		wantError(t, again.Pin(old, keyB), "changed")
		if known, err := again.Forget(old); !known || err != nil {
			t.Errorf("forgot %v, %v", known, err)
		}
		wantError(t, again.Pin("new", keyB))
	}
}

// What a process that was killed has left beside the file is in nobody's way, and does not stay.
func TestKnownAfterCrash(t *testing.T) {
	_, key := seeded(1)
	dir := t.TempDir()
	path := filepath.Join(dir, "known")
	wantError(t, openKnown(t, path, "").Pin("alice", key))
	write(t, path+".new", "# known peers of me", 0o600)
	k := openKnown(t, path, "")
	if _, known, err := k.Lookup("alice"); !known || err != nil {
		t.Errorf("alice is known: %v, %v", known, err)
	}
	wantError(t, k.Pin("bob", key))
	if list, want := names(t, dir), []string{"known", "known.lock"}; !slices.Equal(list, want) {
		t.Errorf("the directory has %q, want %q", list, want)
	}
}
