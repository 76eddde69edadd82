package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

func fuzzKey(seed byte) PublicKey {
	return Public(ed25519.NewKeyFromSeed(slices.Repeat([]byte{seed}, ed25519.SeedSize)))
}

// What is read from a file of known peers is what was written, also after it has been written again.
func FuzzKnownPeersFile(f *testing.F) {
	key := fuzzKey(1).String()
	for _, text := range []string{
		"", "# known peers of mesh \"\"\n", "# known peers of mesh \"demo\"\nalice " + key + "\n\n# the boss\n\"b o\\tb\" " + key + "\r\n",
		"# known peers of mesh `d`\r\n\"\"" + key + "\na\"b\" " + key, "# known peers of mesh 'x'\n\"\\xff\" " + key + "\n\xff " + key,
		"# known peers of mesh \"\"\nalice " + key + "\nalice " + fuzzKey(2).String(),
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		mesh, all, err := parseKnown(text)
		if err != nil {
			return
		}
		written := (&KnownPeers{mesh: mesh}).format(all)
		again, same, err := parseKnown(string(written))
		if err != nil || again != mesh || !maps.Equal(same, all) {
			t.Fatalf("read %q of %q, wrote %q, read %q of %q, %v", all, mesh, written, same, again, err)
		}
		if lines := bytes.Count(written, []byte("\n")); lines != len(all)+1 {
			t.Errorf("%d lines for %d peers:\n%s", lines, len(all), written)
		}
	})
}

// Whatever the ids of two peers and the name of the mesh are made of, each has its own key afterwards.
func FuzzKnownPeers(f *testing.F) {
	for _, s := range [][3]string{{"", "alice", "bob"}, {"demo", "a", `"a"`}, {"\n", "a b", "a"}, {`"`, "# x", "#"}, {"\\", "\ufffd", "\xff"}, {"\r", "a", "a\r"}, {" ", "", " "}} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, mesh, a, b string) {
		want := map[string]PublicKey{a: fuzzKey(1), b: fuzzKey(2)}
		text := (&KnownPeers{mesh: mesh}).format(want)
		got, all, err := parseKnown(string(text))
		if err != nil || got != mesh || !maps.Equal(all, want) {
			t.Fatalf("wrote %q of %q as %q, read %q of %q, %v", want, mesh, text, all, got, err)
		}
		if a != b && QuoteID(a) == QuoteID(b) {
			t.Errorf("%q and %q are both %s", a, b, QuoteID(a))
		}
		if strings.ContainsAny(QuoteID(a), "\x00\x1b\n\r\u2028") {
			t.Errorf("%q stands in the file as %q", a, QuoteID(a))
		}
	})
}

// A claim that is added to a file is found there, and changes no other mesh's.
func FuzzClaimsFile(f *testing.F) {
	for _, s := range [][3]string{
		{"", "", "alice"}, {"\"demo\" \"alice\"\n", "demo", "bob"}, {"\"demo\" \"alice\"", "other", "b o\nb"}, {"demo alice\r\n\n", "", `"`},
		{"\"\\\"\" \"\\xff\"\n", `"`, "\xff"}, {"\"demo\"", "demo", "x"}, {"`demo` \"x\" y", "demo", "x"},
	} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, text, mesh, peer string) {
		was, err := findClaim(text, mesh)
		if err != nil || peer == "" {
			return
		}
		others := make(map[string]string)
		for line := range strings.Lines(text) {
			if name, id, ok := cutClaim(strings.TrimSuffix(line, "\n")); ok && name != mesh && others[name] == "" {
				others[name] = id
			}
		}
		want := was
		if was == "" {
			want = peer
		}
		added := string(addClaim([]byte(text), mesh, peer))
		if got, err := findClaim(added, mesh); got != want || err != nil {
			t.Fatalf("%q and %q of %q: found %q, %v; want %q", text, peer, mesh, got, err, want)
		}
		if was != "" {
			return // what follows the line for this mesh was not looked at
		}
		for name, id := range others {
			if got, err := findClaim(added, name); got != id || err != nil {
				t.Errorf("%q: the claim of %q was %q, and is %q, %v", text, name, id, got, err)
			}
		}
	})
}

// What is read from a file with a statement is what is written, and no other file than the root's own passes.
func FuzzStatementFile(f *testing.F) {
	root, roots := ed25519.NewKeyFromSeed(slices.Repeat([]byte{9}, ed25519.SeedSize)), []PublicKey{fuzzKey(9)}
	signed := NewStatement(root, "demo", "alice", fuzzKey(1), time.Unix(4102444800, 0))
	text, err := json.Marshal(signed)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		string(text), string(text) + "\n", "{}", "", "null", strings.ToUpper(string(text)), `{"mesh":"\ud800","peer_id":"a","key":"k","not_after":1e3,"sig":"s"}`,
		strings.Replace(string(text), "4102444800", "9223372036854775807", 1), strings.Replace(string(text), `"demo"`, `"demo","mesh":"omed"`, 1),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		st, err := parseStatement([]byte(text))
		if err != nil {
			return
		}
		written, err := json.Marshal(st)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseStatement(written); err != nil || again != st {
			t.Fatalf("read %+v, wrote %s, read %+v, %v", st, written, again, err)
		}
		if st.Verify(roots) == nil && st != signed {
			t.Errorf("a forgery: %+v", st)
		}
		_ = st.about("demo", "alice", fuzzKey(1))
	})
}

// A key that is listed as it is written is revoked, and a file that is taken lists nothing else than keys.
func FuzzRevokedFile(f *testing.F) {
	key := fuzzKey(1).String()
	for _, text := range []string{"", key, "# " + key, key + "#" + key, "\r\n " + key + "\t# x\r\n" + fuzzKey(2).String() + "\n", key + " " + key, "AAAA", "\x00"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := parseRevoked([]byte(text))
		if err != nil {
			return
		}
		var written strings.Builder
		for k := range keys {
			if k.weak() {
				t.Errorf("%q lists %v", text, k)
			}
			written.WriteString(k.String() + "\n")
		}
		if again, err := parseRevoked([]byte(written.String())); err != nil || !maps.Equal(again, keys) {
			t.Fatalf("read %v, wrote %q, read %v, %v", keys, written.String(), again, err)
		}
		more, err := parseRevoked([]byte(text + "\n" + fuzzKey(3).String() + " # more"))
		if err != nil || !more[fuzzKey(3)] || len(more) < len(keys) {
			t.Errorf("%q: one key more gives %v, %v", text, more, err)
		}
	})
}
