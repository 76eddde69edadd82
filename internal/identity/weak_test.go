package identity

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"testing"
)

// A point of the curve -x²+y² = 1+dx²y² over the field of size p (RFC 8032, section 5.1).
type point struct{ x, y *big.Int }

var (
	curveP = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	curveD = mul(big.NewInt(-121665), new(big.Int).ModInverse(big.NewInt(121666), curveP))
)

func mod(a *big.Int) *big.Int    { return new(big.Int).Mod(a, curveP) }
func mul(a, b *big.Int) *big.Int { return mod(new(big.Int).Mul(a, b)) }
func add(a, b *big.Int) *big.Int { return mod(new(big.Int).Add(a, b)) }
func div(a, b *big.Int) *big.Int { return mul(a, new(big.Int).ModInverse(b, curveP)) }

func (p point) plus(q point) point {
	one := big.NewInt(1)
	dxy := mul(curveD, mul(mul(p.x, q.x), mul(p.y, q.y)))
	return point{
		div(add(mul(p.x, q.y), mul(p.y, q.x)), add(one, dxy)),
		div(add(mul(p.y, q.y), mul(p.x, q.x)), add(one, new(big.Int).Neg(dxy))),
	}
}

// withY returns the points with this y: one if x is 0, else two, or none.
func withY(y *big.Int) []point {
	yy := mul(y, y)
	xx := div(add(yy, big.NewInt(-1)), add(mul(curveD, yy), big.NewInt(1)))
	x := new(big.Int).ModSqrt(xx, curveP)
	switch {
	case x == nil:
		return nil
	case x.Sign() == 0:
		return []point{{x, y}}
	}
	return []point{{x, y}, {mod(new(big.Int).Neg(x)), y}}
}

func (p point) encode() PublicKey {
	var k PublicKey
	p.y.FillBytes(k[:])
	slices.Reverse(k[:])
	k[31] |= byte(p.x.Bit(0)) << 7
	return k
}

// torsion returns the points whose y is listed in smallOrder.
func torsion(t *testing.T) (points []point) {
	t.Helper()
	for _, y := range smallOrder {
		raw, err := hex.DecodeString(y)
		if err != nil || len(raw) != 32 {
			t.Fatal(y, err)
		}
		slices.Reverse(raw)
		if found := withY(new(big.Int).SetBytes(raw)); len(found) == 0 {
			t.Errorf("no point has the y %s", y)
		} else {
			points = append(points, found...)
		}
	}
	return points
}

// The list has all points of small order, and no other: there are as many as the curve's cofactor says, 8, and the
// order of each divides 8.
func TestSmallOrder(t *testing.T) {
	seen := make(map[PublicKey]bool)
	for _, p := range torsion(t) {
		two := p.plus(p)
		four := two.plus(two)
		if o := four.plus(four); o.x.Sign() != 0 || o.y.Cmp(big.NewInt(1)) != 0 {
			t.Errorf("8 times %v is %v", p, o)
		}
		k := p.encode()
		if seen[k] {
			t.Errorf("%x is there twice", k[:])
		}
		seen[k] = true
		if !k.weak() {
			t.Errorf("%x passes", k[:])
		}
	}
	if len(seen) != 8 {
		t.Errorf("%d points, want 8", len(seen))
	}
}

// encodings returns every 32 bytes that some implementation takes for a point of small order: with y or y + p, and
// with any sign of x.
func encodings(t *testing.T) (all []PublicKey) {
	t.Helper()
	limit := new(big.Int).Lsh(big.NewInt(1), 255)
	for _, p := range torsion(t) {
		for y := p.y; y.Cmp(limit) < 0; y = new(big.Int).Add(y, curveP) {
			for sign := range int64(2) {
				k := point{big.NewInt(sign), y}.encode()
				if !slices.Contains(all, k) {
					all = append(all, k)
				}
			}
		}
	}
	return all
}

// Nobody has the private key of a point of small order, and everyone can sign with it: that is shown, so that the
// refusal means something.
func TestForgedSignaturesAreRefused(t *testing.T) {
	judge, err := Open(Settings{})
	if err != nil {
		t.Fatal(err)
	}
	forged := 0
	for _, key := range encodings(t) {
		link, sig := forge(t, key)
		if sig == nil {
			continue // Go does not take these bytes for a point
		}
		forged++
		if !ed25519.Verify(key[:], link.far().text("", key), sig) {
			t.Fatalf("%x: the forgery is none", key[:])
		}
		text := base64.StdEncoding.EncodeToString(key[:])
		if k, err := ParsePublicKey(text); err == nil {
			t.Errorf("%x passes for the key %v", key[:], k)
		}
		if proof, err := judge.Verify(link, &Shown{Key: text, Sig: base64.StdEncoding.EncodeToString(sig)}); err == nil {
			t.Errorf("%x is proven by a forgery: %v", key[:], proof)
		}
	}
	if forged < 10 {
		t.Errorf("only %d of the encodings could be forged for", forged)
	}
}

// forge finds a signature of a link without a private key: S is 0, and R, of small order as well, is guessed until it
// is what the hash asks for. The forger chooses its own session, and with it the hash.
func forge(t *testing.T, key PublicKey) (Link, []byte) {
	t.Helper()
	for try := range 64 {
		link := Link{Own: "judge", Other: "forger", OwnCert: sha256.Sum256([]byte("a")), OtherCert: sha256.Sum256([]byte("b")),
			OwnSession: "s", OtherSession: fmt.Sprint(try)}
		text := link.far().text("", key)
		for _, r := range torsion(t) {
			guess := r.encode()
			if sig := append(guess[:], make([]byte, 32)...); ed25519.Verify(key[:], text, sig) {
				return link, sig
			}
		}
	}
	return Link{}, nil
}

// Every y of p or more is a second way to write one that is smaller.
func TestNotCanonical(t *testing.T) {
	for i := range int64(19) {
		for sign := range int64(2) {
			if k := (point{big.NewInt(sign), new(big.Int).Add(curveP, big.NewInt(i))}).encode(); !k.weak() {
				t.Errorf("p + %d passes", i)
			}
		}
	}
	for i := int64(2); i < 200; i++ {
		y := new(big.Int).Sub(curveP, big.NewInt(i))
		if k := (point{new(big.Int), y}).encode(); k.weak() {
			t.Errorf("p - %d is refused", i)
		}
	}
	for seed := range byte(100) {
		if k := Public(ed25519.NewKeyFromSeed(slices.Repeat([]byte{seed}, 32))); k.weak() {
			t.Errorf("the key of seed %d is refused", seed)
		}
	}
}
