package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the vectors")

// A vector is a case of docs/fixtures/identity.json: what is signed, by which key, and the result. Implementations in
// other languages check that they make the same bytes.
type vector struct {
	Name string `json:"name"`
	Seed string `json:"seed"` // of the signer's key, in hexadecimal (RFC 8032, section 5.1.5)
	Key  string `json:"key"`
	ID   string `json:"id"` // that certifies the key
	Mesh string `json:"mesh"`

	Link        *linkVector        `json:"link,omitempty"`
	Description *descriptionVector `json:"description,omitempty"`
	Statement   *Statement         `json:"statement,omitempty"`

	Text string `json:"text"` // what is signed, in hexadecimal
	Sig  string `json:"sig"`
}

type linkVector struct {
	Role         string `json:"role"`
	Own          string `json:"own"`
	Other        string `json:"other"`
	OwnCert      string `json:"own_cert"`   // SHA-256 of the certificate, in hexadecimal
	OtherCert    string `json:"other_cert"` //
	OwnSession   string `json:"own_session"`
	OtherSession string `json:"other_session"`
}

type descriptionVector struct {
	Type         string `json:"type"`
	Own          string `json:"own"`
	Other        string `json:"other"`
	OwnSession   string `json:"own_session"`
	OtherSession string `json:"other_session"`
	Number       int    `json:"number"`
	SDP          string `json:"sdp"`
}

func vectors() []vector {
	seed := func(b byte) []byte { return bytes.Repeat([]byte{b}, ed25519.SeedSize) }
	cert := func(b byte) [32]byte { return [32]byte(bytes.Repeat([]byte{b}, 32)) }
	make := func(name string, s []byte, mesh string) (vector, ed25519.PrivateKey) {
		key := ed25519.NewKeyFromSeed(s)
		return vector{Name: name, Seed: hex.EncodeToString(s), Key: Public(key).String(), ID: Public(key).ID(), Mesh: mesh}, key
	}
	alice := Public(ed25519.NewKeyFromSeed(seed(1)))

	link := Link{true, "alice", "bob", cert(0xa0), cert(0xb0), "9f86d081884c7d65", "2c26b46b68ffc68f"}
	v1, key := make("link, as alice signs it", seed(1), "demo")
	text := link.text("demo", Public(key))
	v1.Link = &linkVector{"offerer", link.Own, link.Other, hex.EncodeToString(link.OwnCert[:]), hex.EncodeToString(link.OtherCert[:]), link.OwnSession, link.OtherSession}
	v1.Text, v1.Sig = hex.EncodeToString(text), link.sign("demo", key)

	far := link.far()
	v2, key := make("the same link, as bob signs it", seed(2), "demo")
	text = far.text("demo", Public(key))
	v2.Link = &linkVector{"answerer", far.Own, far.Other, hex.EncodeToString(far.OwnCert[:]), hex.EncodeToString(far.OtherCert[:]), far.OwnSession, far.OtherSession}
	v2.Text, v2.Sig = hex.EncodeToString(text), far.sign("demo", key)

	d := Description{"offer", "alice", "bob", link.OwnSession, link.OtherSession, 1, "v=0\r\n"}
	v3, key := make("offer of an ICE restart", seed(1), "")
	v3.Description = &descriptionVector{d.Type, d.Own, d.Other, d.OwnSession, d.OtherSession, d.Number, d.SDP}
	v3.Text, v3.Sig = hex.EncodeToString(d.text("", Public(key))), sign(key, d.text("", Public(key)))

	v4, key := make("membership of alice, as a root signs it", seed(3), "demo")
	st := NewStatement(key, "demo", "alice", alice, time.Unix(4102444800, 0))
	v4.Statement = &st
	v4.Text, v4.Sig = hex.EncodeToString(st.text()), st.Sig
	return []vector{v1, v2, v3, v4}
}

// What is signed never changes.
func TestVectors(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "fixtures", "identity.jsonl")
	var lines bytes.Buffer
	enc := json.NewEncoder(&lines)
	for _, v := range vectors() {
		if err := enc.Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	if *update {
		if err := os.WriteFile(path, lines.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(lines.Bytes(), want) {
		t.Errorf("got\n%s\nwant\n%s", lines.Bytes(), want)
	}
}

// A peer that signs with a name that no mesh can have is refused, also where the name does not matter.
func TestMeshNameOfPeer(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	l := Link{Own: "alice", Other: "bob", OwnSession: "a", OtherSession: "b"}
	judge, err := Open(Settings{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"": "", "demo": "", strings.Repeat("ä", 64): "",
		strings.Repeat("x", 129): "129 bytes", "\xff\xfe": "UTF-8", "a\x1b[2J": "U+001B",
	} {
		proof, err := judge.Verify(l.far(), &Shown{Mesh: &name, Key: Public(key).String(), Sig: l.sign(name, key)})
		if want == "" && (err != nil || proof.Mesh != name) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %+v, %v; want an error about %q", name, proof, err, want)
		}
	}
}
