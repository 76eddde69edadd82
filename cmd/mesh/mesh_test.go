package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/chatixia-ai/mesh/internal/identity"
)

// result is what one command line has printed, and its exit status.
type result struct {
	out, err string
	status   int
}

// cli carries out a command line.
func cli(args ...string) result {
	var out, err strings.Builder
	status := run(context.Background(), args, strings.NewReader(""), &out, &err)
	return result{out.String(), err.String(), status}
}

// want fails unless the exit status is the one given, and what is printed (on success) or said (otherwise) has all of
// words.
func (r result) want(t *testing.T, status int, words ...string) {
	t.Helper()
	if r.status != status || status == 0 && r.err != "" || status != 0 && r.err == "" {
		t.Errorf("status %d, want %d\n%s%s", r.status, status, r.out, r.err)
		return
	}
	text := r.out
	if status != 0 {
		text = r.err
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q is not in\n%s", w, text)
		}
	}
}

// into reads JSON that was printed.
func (r result) into(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.out), v); err != nil || r.status != 0 {
		t.Fatalf("%v, status %d\n%s%s", err, r.status, r.out, r.err)
	}
}

// inTemp makes a test run in an empty directory, without the variables that the command reads.
func inTemp(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	for _, name := range []string{"MESH_IDENTITY_KEY", "MESH_KNOWN_PEERS", "MESH_ROOTS", "MESH_NAME"} {
		t.Setenv(name, "")
	}
}

// newKeyFile makes a key.
func newKeyFile(t *testing.T, file string) (k shownKey) {
	t.Helper()
	cli("key", "new", "--json", "--out", file).into(t, &k)
	return k
}

func TestVersion(t *testing.T) {
	cli("--version").want(t, 0, "mesh ", "go1.")
}

// A command line that is wrong has status 2, says what is wrong, and how to learn more.
func TestUsage(t *testing.T) {
	inTemp(t)
	for _, tc := range []struct{ line, want string }{
		{"", "which command"},
		{"key", "which command"},
		{"key known", "which command"},
		{"kye", `"kye"; did you mean key`},
		{"key sho", `"sho"; did you mean show`},
		{"completion nonesuch", `"nonesuch"`},
		{"--nonesuch", "--nonesuch"},
		{"key new --nonesuch", "--nonesuch"},
		{"key new", "--out"},
		{"key new --out", "--out"},
		{"key new a", `"a"`},
		{"key show", "MESH_IDENTITY_KEY"},
		{"key show a b", "2"},
		{"key show a --key b", "--key"},
		{"key known list", "MESH_KNOWN_PEERS"},
		{"key known list a", `"a"`},
		{"key known forget --file f", "1 arg"},
		{"key sign", "--root"},
		{"key sign --root r", "--peer"},
		{"key sign --root r --peer p", "--key-file"},
		{"key sign --root r --peer p --key k --key-file f", "--key-file"},
		{"key sign --root r --peer p --key k --for -1h", "--for"},
		{"key sign --root r --peer p --key k --for 0", "--for"},
		{"key sign --root r --peer p --key k --for 87601h", "--for"},
		{"key sign --root r --peer p --key k --for 30d", "--for"},
	} {
		r := cli(strings.Fields(tc.line)...)
		r.want(t, 2, tc.want, "try --help", "mesh")
		if r.out != "" {
			t.Errorf("%q prints %q", tc.line, r.out)
		}
	}
}

// Each command has help with an example, which its flags understand.
func TestHelp(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "completion" || c.Name() == "help" {
			return
		}
		path := strings.Fields(c.CommandPath())[1:]
		cli(append(path, "--help")...).want(t, 0, c.Long, "--json")
		if c.Short == "" || c.Long == "" || !c.HasSubCommands() && c.Example == "" {
			t.Errorf("%s has no help, or no example", c.CommandPath())
		}
		for line := range strings.Lines(c.Example) {
			if !strings.HasPrefix(line, "  mesh ") {
				t.Errorf("the example %q", line)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(io.Discard, io.Discard))
}

// What a file or an argument holds does not steer the terminal.
func TestPrintable(t *testing.T) {
	inTemp(t)
	esc := "\x1b[2J\r"
	for _, args := range [][]string{{esc}, {"key", "show", esc}, {"key", "show", "--key", esc}, {"--" + esc}, {"key", "known", "list", "--file", esc}, {"key", "new", "--out", "no/" + esc}} {
		r := cli(args...)
		if strings.ContainsAny(r.err+r.out, "\x1b\r") || r.status == 0 {
			t.Errorf("%q: %q %q", args, r.out, r.err)
		}
	}
	r := cli("key", "new", "--out", esc)
	if strings.ContainsAny(r.err+r.out, "\x1b\r") || r.status != 0 {
		t.Errorf("%+q", []string{r.out, r.err})
	}
}

func TestCompletion(t *testing.T) {
	inTemp(t)
	cli("completion", "bash").want(t, 0, "bash completion")
	_, key := signer(t)
	known, err := identity.OpenKnownPeers("known", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"bob", "b\tob", "\x1bc"} {
		if err := known.Pin(id, key); err != nil {
			t.Fatal(err)
		}
	}
	if r := cli("__complete", "key", "known", "forget", "--file", "known", ""); !strings.HasPrefix(r.out, "bob\n:") {
		t.Errorf("%+q", []string{r.out, r.err})
	}
}

func TestKeyNewAndShow(t *testing.T) {
	inTemp(t)
	r := cli("key", "new", "--out", "alice.key")
	r.want(t, 0, "alice.key", "k-")
	cli("key", "show", "alice.key").want(t, 0, r.out)
	cli("key", "show", "--key", "alice.key").want(t, 0, r.out)
	t.Setenv("MESH_IDENTITY_KEY", "alice.key")
	cli("key", "show").want(t, 0, r.out)
	cli("key", "new").want(t, 1, "alice.key", "never overwritten")
	var k shownKey
	cli("key", "show", "--json").into(t, &k)
	public, err := identity.ParsePublicKey(k.Key)
	if err != nil || k.ID != public.ID() || k.File != "alice.key" || !strings.Contains(r.out, k.Key) || !strings.Contains(r.out, k.ID) {
		t.Errorf("%+v, %v\n%s", k, err, r.out)
	}
	secret, err := os.ReadFile("alice.key")
	if err != nil {
		t.Fatal(err)
	}
	if line := strings.Split(string(secret), "\n")[1]; strings.Contains(r.out, line[20:40]) {
		t.Errorf("shows the private key:\n%s", r.out)
	}
	cli("key", "show", "bob.key").want(t, 1, "bob.key", "mesh key new")
	cli("key", "new", "--out", "no/bob.key").want(t, 1, "no/bob.key", "make the directory no first")
	if err := os.WriteFile("text", []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	cli("key", "show", "text").want(t, 1, "text", "PEM")
	cli("key", "show", ".").want(t, 1, "not a regular file")
}

// signer makes the key of a root.
func signer(t *testing.T) (k shownKey, public identity.PublicKey) {
	t.Helper()
	k = newKeyFile(t, "root.key")
	public, err := identity.ParsePublicKey(k.Key)
	if err != nil {
		t.Fatal(err)
	}
	return k, public
}

func TestKeySign(t *testing.T) {
	inTemp(t)
	root, rootKey := signer(t)
	alice := newKeyFile(t, "alice.key")
	sign := func(args ...string) result {
		return cli(append([]string{"key", "sign", "--root", "root.key", "--peer", "alice"}, args...)...)
	}
	check := func(r result, meshName string, lifetime time.Duration) {
		t.Helper()
		var st identity.Statement
		r.into(t, &st)
		left := time.Until(st.End())
		if err := st.Verify([]identity.PublicKey{rootKey}); err != nil || st.Mesh != meshName || st.PeerID != "alice" || st.Key != alice.Key || left > lifetime || left < lifetime/2 {
			t.Errorf("%+v, %v, left %v", st, err, left)
		}
	}
	check(sign("--key", alice.Key), "", 720*time.Hour)
	check(sign("--key-file", "alice.key", "--for", "2h", "--mesh", "demo"), "demo", 2*time.Hour)
	t.Setenv("MESH_NAME", "from the environment")
	check(sign("--key-file", "alice.key"), "from the environment", 720*time.Hour)
	check(sign("--key-file", "alice.key", "--mesh", "demo"), "demo", 720*time.Hour)

	sign("--key", alice.Key, "--out", "alice.member").want(t, 0, "alice.member", `"from the environment"`, root.Key)
	check(sign("--json", "--key", alice.Key, "--out", "alice.member", "--for", "3h"), "from the environment", 3*time.Hour)
	if _, err := identity.Open(identity.Settings{KeyFile: "alice.key", MeshName: "from the environment", Policy: identity.Member,
		Roots: []string{root.Key}, MembershipFile: "alice.member"}); err != nil {
		t.Error(err)
	}
}

func TestKeySignRefuses(t *testing.T) {
	inTemp(t)
	root, _ := signer(t)
	alice := newKeyFile(t, "alice.key")
	bob := newKeyFile(t, "bob.key")
	sign := func(peer string, args ...string) result {
		return cli(append([]string{"key", "sign", "--root", "root.key", "--peer", peer}, args...)...)
	}
	sign("alice", "--key", root.Key).want(t, 1, "root's own", "--allow-root-key")
	sign("alice", "--key-file", "root.key").want(t, 1, "root's own")
	sign("alice", "--key", root.Key, "--allow-root-key").want(t, 0, root.Key)
	sign("alice", "--key", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").want(t, 2, "small order")
	sign("alice", "--key", alice.Key[1:]).want(t, 2, "base64")
	sign("alice", "--key-file", "none").want(t, 1, "none")
	sign(alice.ID, "--key", bob.Key).want(t, 1, alice.ID, bob.ID)
	sign(strings.ToUpper(alice.ID), "--key", alice.Key).want(t, 1, alice.ID)
	sign(alice.ID, "--key", alice.Key).want(t, 0, alice.ID)
	sign(strings.Repeat("x", 129), "--key", alice.Key).want(t, 2, "129 bytes")
	sign("a\nb", "--key", alice.Key).want(t, 2, "U+000A")
	sign("a\xff", "--key", alice.Key).want(t, 2, "UTF-8")
	sign("alice", "--key", alice.Key, "--mesh", strings.Repeat("x", 129)).want(t, 2, "--mesh", "129 bytes")
	sign("alice", "--key", alice.Key, "--mesh", "\xff\xfe").want(t, 2, "--mesh", "UTF-8")
	sign("alice", "--key", alice.Key, "--mesh", "a\x1b").want(t, 2, "--mesh", "U+001B")
	sign("alice", "--key", alice.Key, "--mesh", strings.Repeat("ä", 64)).want(t, 0)
	cli("key", "sign", "--root", "none", "--peer", "a", "--key", alice.Key).want(t, 1, "none")

	// Nothing is written over but an older statement about the same peer.
	sign("alice", "--key", alice.Key, "--out", "alice.member").want(t, 0)
	sign("bob", "--key", bob.Key, "--out", "alice.member").want(t, 1, "alice.member", "not replaced", `"alice"`)
	sign("bob", "--key", bob.Key, "--out", "bob.key").want(t, 1, "bob.key", "not replaced", "choose another file")
	cli("key", "show", "bob.key").want(t, 0, bob.Key)
	sign("bob", "--key", bob.Key, "--out", filepath.Join("no", "bob.member")).want(t, 1, "make the directory no first")
}

func TestKeyShowStatement(t *testing.T) {
	inTemp(t)
	root, _ := signer(t)
	alice := newKeyFile(t, "alice.key")
	cli("key", "sign", "--root", "root.key", "--peer", "al ice", "--key", alice.Key, "--mesh", "demo", "--out", "member").want(t, 0)
	cli("key", "show", "member").want(t, 0, "demo", `"al ice"`, alice.Key, ", in 7", "not checked", "MESH_ROOTS")
	var s shownStatement
	cli("key", "show", "--json", "member").into(t, &s)
	if s.Valid != nil || s.Root != "" || s.Expired || s.Mesh != "demo" || s.PeerID != "al ice" || s.Key != alice.Key || s.File != "member" {
		t.Errorf("without roots %+v", s)
	}
	cli("key", "show", "--json", "--roots", alice.Key, "member").into(t, &s)
	if s.Valid == nil || *s.Valid || s.Root != "" {
		t.Errorf("with another root %+v", s)
	}
	cli("key", "show", "--roots", alice.Key, "member").want(t, 0, "WRONG")
	t.Setenv("MESH_ROOTS", alice.Key+", "+root.Key)
	cli("key", "show", "--json", "member").into(t, &s)
	if s.Valid == nil || !*s.Valid || s.Root != root.Key {
		t.Errorf("with the root %+v", s)
	}
	cli("key", "show", "member").want(t, 0, "by root "+root.Key)
	cli("key", "show", "--roots", "x", "member").want(t, 2, `"x"`, "base64")

	key, err := identity.ReadKey("root.key")
	if err != nil {
		t.Fatal(err)
	}
	public, err := identity.ParsePublicKey(alice.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := identity.NewStatement(key, "demo", "alice", public, time.Unix(1000, 0)).WriteFile("old"); err != nil {
		t.Fatal(err)
	}
	cli("key", "show", "old").want(t, 0, "1970-01-01T00:16:40Z", "EXPIRED", "mesh key sign")
	cli("key", "show", "--json", "old").into(t, &s)
	if s.Valid == nil || *s.Valid || !s.Expired || s.Root != root.Key {
		t.Errorf("the expired one is %+v", s)
	}
	if err := os.WriteFile("damaged", []byte(` {"mesh":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	cli("key", "show", "damaged").want(t, 1, "damaged", "not a statement")
}

func TestKeyKnown(t *testing.T) {
	inTemp(t)
	_, key := signer(t)
	cli("key", "known", "list", "--file", "known").want(t, 1, "known", "policy known make")
	known, err := identity.OpenKnownPeers("known", "demo")
	if err != nil {
		t.Fatal(err)
	}
	list := func(args ...string) result {
		return cli(append([]string{"key", "known", "list", "--file", "known"}, args...)...)
	}
	var none []knownPeer
	if list("--json").into(t, &none); none == nil || len(none) > 0 || list().out != "" {
		t.Errorf("an empty list is %q", none)
	}
	strange := "b o\x1b[2Jb"
	for _, id := range []string{"alice", strange} {
		if err := known.Pin(id, key); err != nil {
			t.Fatal(err)
		}
	}
	list().want(t, 0, "alice "+key.String()+"\n\"b o\\x1b[2Jb\" "+key.String()+"\n")
	var all []knownPeer
	if list("--json").into(t, &all); len(all) != 2 || all[1] != (knownPeer{strange, key.String()}) {
		t.Errorf("%q", all)
	}

	forget := func(args ...string) result { return cli(append([]string{"key", "known", "forget"}, args...)...) }
	t.Setenv("MESH_KNOWN_PEERS", "known")
	t.Setenv("MESH_NAME", "omed")
	list().want(t, 1, `"demo"`, `"omed"`, "MESH_NAME")
	forget("alice").want(t, 1, `"demo"`, `"omed"`)
	list("--mesh", "demo").want(t, 0, "alice")
	t.Setenv("MESH_NAME", "")
	forget("carol").want(t, 1, "known", `"carol"`, "mesh key known list")
	forget("alice").want(t, 0, "alice", key.String())
	forget("alice").want(t, 1, `"alice"`)
	forget("--json", "--mesh", "demo", strange).into(t, &all[0])
	if all[0] != (knownPeer{strange, key.String()}) || list().out != "" {
		t.Errorf("forgot %q, left %q", all[0], list().out)
	}
	if _, err := identity.OpenKnownPeers("known", "demo"); err != nil {
		t.Error(err) // the file is still of the same mesh
	}
	if err := os.WriteFile("known", []byte("alice\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	list().want(t, 1, "known", "line 1", "restore the file")
}
