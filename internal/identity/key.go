package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A PublicKey is an Ed25519 public key (RFC 8032). As text it is standard base64, 44 characters. The zero value means
// that there is none.
type PublicKey [ed25519.PublicKeySize]byte

// Public returns the public key of a private one.
func Public(k ed25519.PrivateKey) PublicKey {
	return PublicKey(k[ed25519.PrivateKeySize-ed25519.PublicKeySize:])
}

// IsZero reports whether there is no key.
func (k PublicKey) IsZero() bool { return k == PublicKey{} }

// String returns the key as text; "" for the zero value.
func (k PublicKey) String() string {
	if k.IsZero() {
		return ""
	}
	return base64.StdEncoding.EncodeToString(k[:])
}

// ParsePublicKey reads the text of a key. It refuses the few keys for which anyone can make signatures.
func ParsePublicKey(text string) (PublicKey, error) {
	raw, ok := decode(text)
	if !ok || len(raw) != ed25519.PublicKeySize {
		return PublicKey{}, errors.New("not the base64 of 32 bytes")
	}
	k := PublicKey(raw)
	if k.weak() {
		return PublicKey{}, errors.New("a point of small order, for which anyone can sign")
	}
	return k, nil
}

// decode returns the bytes of base64 that is written in the one way in which this package writes it.
func decode(text string) (raw []byte, ok bool) {
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	return raw, err == nil && !strings.ContainsAny(text, "\r\n") // which Go skips
}

// smallOrder are the y coordinates, little-endian, of the points whose order divides 8.
var smallOrder = [...]string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	highestY,
}

// highestY is p - 1, where p = 2^255 - 19 is the size of the field. A higher y differs from it in the first byte only.
const highestY = "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"

// weak reports whether the key is a point of small order, or not written in the one way that RFC 8032 allows.
func (k PublicKey) weak() bool {
	k[31] &= 0x7f // without the sign of x
	var buf [2 * len(k)]byte
	hex.Encode(buf[:], k[:])
	y := string(buf[:])
	return slices.Contains(smallOrder[:], y) || y[2:] == highestY[2:] && y[:2] > highestY[:2]
}

const (
	certifiedPrefix = "k-"
	certifiedLength = 52 // of base32 of SHA-256, without padding
)

var certifiedEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// ID returns the id that certifies the key: only an agent with the key can have it.
func (k PublicKey) ID() string {
	if k.IsZero() {
		return ""
	}
	hash := sha256.Sum256(k[:])
	return certifiedPrefix + strings.ToLower(certifiedEncoding.EncodeToString(hash[:]))
}

// Certified reports whether an id has the form of one that certifies a key. It is generous about case, so that
// nothing that a person takes for such an id passes for an ordinary one: only [PublicKey.ID] says which is right.
func Certified(id string) bool {
	rest, ok := strings.CutPrefix(strings.ToLower(id), certifiedPrefix)
	if !ok || len(rest) != certifiedLength {
		return false
	}
	return strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

const (
	pemType    = "PRIVATE KEY" // PKCS #8, RFC 5958
	maxKeyFile = 16 << 10      // bytes
)

// ReadKey reads a private key that only this user can read. openssl genpkey -algorithm ed25519 makes such files, too.
func ReadKey(path string) (ed25519.PrivateKey, error) {
	raw, err := readFile(path, maxKeyFile, 0o077)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; make one with: mesh key new --out FILE", err)
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(raw)
	if block == nil || block.Type != pemType {
		return nil, fmt.Errorf("%s: it has no PEM block %q", path, pemType)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: its PEM block is no PKCS #8 key", path) // the cause may quote the key
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: it is a %T, want an Ed25519 key", path, parsed)
	}
	return key, nil
}

// NewKeyFile makes a key in a new file that only this user can read.
func NewKeyFile(path string) (PublicKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return PublicKey{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return PublicKey{}, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return PublicKey{}, withDirectory(err, path)
	}
	err = errors.Join(pem.Encode(f, &pem.Block{Type: pemType, Bytes: der}), f.Sync(), f.Close())
	if err != nil {
		return PublicKey{}, errors.Join(err, os.Remove(path))
	}
	return PublicKey(public), syncDir(filepath.Dir(path))
}
