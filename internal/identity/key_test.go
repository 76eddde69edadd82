package identity_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh/internal/identity"
)

// openSSLKey is what "openssl genpkey -algorithm ed25519" once wrote. Nobody uses it.
const openSSLKey = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB
-----END PRIVATE KEY-----
`

func TestNewKeyFile(t *testing.T) {
	path, public := newKey(t)
	key, err := identity.ReadKey(path)
	if err != nil || identity.Public(key) != public {
		t.Errorf("read %v, %v; made %v", identity.Public(key), err, public)
	}
	fi, err := os.Stat(path)
	if err != nil || runtime.GOOS != "windows" && fi.Mode() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	was := read(t, path)
	if _, err := identity.NewKeyFile(path); !errors.Is(err, fs.ErrExist) || read(t, path) != was {
		t.Errorf("over another key: %v", err)
	}
	if _, err := identity.NewKeyFile(filepath.Join(path, "key")); err == nil {
		t.Error("made a key below a file")
	}
	if _, other := newKey(t); other == public {
		t.Error("two keys are the same")
	}
}

func TestReadKeyOfOpenSSL(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	write(t, path, openSSLKey, 0o600)
	_, want := seeded(1)
	if key, err := identity.ReadKey(path); err != nil || identity.Public(key) != want {
		t.Errorf("%v, want %v", err, want)
	}
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl here; a key that it made once is read all the same")
	}
	path = filepath.Join(t.TempDir(), "fresh")
	if out, err := exec.Command(openssl, "genpkey", "-algorithm", "ed25519", "-out", path).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	key, err := identity.ReadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	der, err := exec.Command(openssl, "pkey", "-in", path, "-pubout", "-outform", "DER").Output()
	if err != nil {
		t.Fatal(err)
	}
	if public, err := x509.ParsePKIXPublicKey(der); err != nil || !key.Public().(ed25519.PublicKey).Equal(public) {
		t.Errorf("openssl has the public key %v, %v", public, err)
	}
}

func TestReadKeyFails(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	edKey, _ := seeded(1)
	for _, tc := range []struct{ name, text, want string }{
		{"empty", "", `no PEM block "PRIVATE KEY"`},
		{"garbage", "hello\n", `no PEM block "PRIVATE KEY"`},
		{"public key", block("PUBLIC KEY", pkcs8(edKey)), `no PEM block "PRIVATE KEY"`},
		{"PKCS 1", block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), `no PEM block "PRIVATE KEY"`},
		{"encrypted", block("ENCRYPTED PRIVATE KEY", pkcs8(edKey)), `no PEM block "PRIVATE KEY"`},
		{"RSA", block("PRIVATE KEY", pkcs8(rsaKey)), "*rsa.PrivateKey, want an Ed25519 key"},
		{"ECDSA", block("PRIVATE KEY", pkcs8(ecKey)), "*ecdsa.PrivateKey, want an Ed25519 key"},
		{"cut short", block("PRIVATE KEY", pkcs8(edKey)[:20]), "no PKCS #8 key"},
		{"a short seed", block("PRIVATE KEY", append([]byte{0x30, 0x2d, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x21, 4, 0x1f}, make([]byte, 31)...)), "no PKCS #8 key"},
		{"huge", strings.Repeat("#\n", 8<<10) + openSSLKey, "over 16384 bytes"},
	} {
		path := filepath.Join(t.TempDir(), "key")
		write(t, path, tc.text, 0o600)
		_, err := identity.ReadKey(path)
		t.Log(err)
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v, want one about %q and the path", tc.name, err, tc.want)
		}
		secret := base64.StdEncoding.EncodeToString(pkcs8(edKey))
		if err != nil && strings.Contains(err.Error(), secret[len(secret)-16:]) {
			t.Errorf("%s: the error quotes the key: %v", tc.name, err)
		}
	}
	_, err = identity.ReadKey(filepath.Join(t.TempDir(), "none"))
	wantError(t, err, "none", "mesh key new")
	_, err = identity.ReadKey(t.TempDir())
	wantError(t, err, "not a regular file")
}

func TestParsePublicKeyFails(t *testing.T) {
	_, key := seeded(1)
	text := key.String()
	if k, err := identity.ParsePublicKey(text); err != nil || k != key {
		t.Errorf("%v, %v", k, err)
	}
	for _, bad := range []string{
		"", " ", text[:43], text + "=", text + "\n", "\n" + text, " " + text, text[:20] + "\n" + text[20:],
		base64.RawStdEncoding.EncodeToString(key[:]), base64.URLEncoding.EncodeToString([]byte(strings.Repeat("\xff", 32))),
		base64.StdEncoding.EncodeToString(key[:31]), base64.StdEncoding.EncodeToString(append(key[:], 0)),
		text[:42] + string(text[42]+1) + "=", // other bits than zero behind the last one
	} {
		if k, err := identity.ParsePublicKey(bad); err == nil {
			t.Errorf("%q is taken for %v", bad, k)
		}
	}
	if none := (identity.PublicKey{}); !none.IsZero() || none.String() != "" || none.ID() != "" {
		t.Errorf("no key is %q, with the id %q", none, none.ID())
	}
}

func TestCertified(t *testing.T) {
	_, key := seeded(1)
	id := key.ID()
	if len(id) != 54 || id != strings.ToLower(id) || !identity.Certified(id) {
		t.Errorf("the id is %q", id)
	}
	// What a person would take for such an id is none of an ordinary peer.
	for _, like := range []string{strings.ToUpper(id), "K-" + id[2:], id[:53] + "7", id[:2] + strings.ToUpper(id[2:])} {
		if !identity.Certified(like) {
			t.Errorf("%q passes for an ordinary id", like)
		}
	}
	for _, other := range []string{"", "k-", id[2:], id[:53], id + "a", id + "=", "k_" + id[2:], id[:53] + "1", id[:53] + "8", id[:53] + "=", " " + id, id[:52] + "é"} {
		if identity.Certified(other) {
			t.Errorf("%q certifies a key", other)
		}
	}
}

// An id that certifies a key is that key's only, under every policy, and only as it is written.
func TestCertifiedNeedsItsKey(t *testing.T) {
	pathA, keyA := newKey(t)
	pathB, _ := newKey(t)
	a, b, none := open(t, identity.Settings{KeyFile: pathA}), open(t, identity.Settings{KeyFile: pathB}), open(t, identity.Settings{})
	id := keyA.ID()
	for name, judge := range map[string]*identity.Identity{
		"off":   none,
		"known": open(t, identity.Settings{Policy: identity.Known, KnownPeersFile: filepath.Join(t.TempDir(), "known")}),
	} {
		if proof, err := meet(a, judge, id, "judge"); err != nil || proof.Key != keyA {
			t.Errorf("%s: with its key: %v, %v", name, proof, err)
		}
		_, err := meet(b, judge, id, "judge")
		wantError(t, err, "not the one that its id certifies")
		_, err = meet(none, judge, id, "judge")
		wantError(t, err, "its id certifies a key")
		_, err = meet(a, judge, strings.ToUpper(id), "judge")
		wantError(t, err, "not the one that its id certifies")
	}
	wantError(t, a.Claim(id))
	wantError(t, b.Claim(id), "has another one")
	wantError(t, none.Claim(id), "has another one or none")
	wantError(t, a.Claim(strings.ToUpper(id)), "has another one")
	if list := names(t, filepath.Dir(pathA)); len(list) != 1 {
		t.Errorf("an id that certifies the key left %q", list)
	}
}
