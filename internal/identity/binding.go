package identity

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strconv"
)

// The tags keep a signature of one kind from passing for one of another.
const (
	linkTag        = "mesh link 1"
	sumTag         = "mesh link sum 1"
	descriptionTag = "mesh description 1"
	statementTag   = "mesh member 1"
)

// A Link is what makes one peer link different from every other, as one end sees it.
type Link struct {
	Offerer                  bool   // this end has made the first offer
	Own, Other               string // peer ids
	OwnCert, OtherCert       [sha256.Size]byte
	OwnSession, OtherSession string
}

// far returns the link as the other end sees it.
func (l Link) far() Link {
	return Link{!l.Offerer, l.Other, l.Own, l.OtherCert, l.OwnCert, l.OtherSession, l.OwnSession}
}

// Sum returns a hash of the link, the same one at both ends and another one for any other link.
func (l Link) Sum() [sha256.Size]byte {
	if !l.Offerer {
		l = l.far()
	}
	return sha256.Sum256(fields(sumTag, l.Own, l.Other, string(l.OwnCert[:]), string(l.OtherCert[:]), l.OwnSession, l.OtherSession))
}

// text returns what the end whose view this is signs with its key.
func (l Link) text(mesh string, key PublicKey) []byte {
	role := "answerer"
	if l.Offerer {
		role = "offerer"
	}
	return fields(linkTag, mesh, role, l.Own, l.Other, string(key[:]), string(l.OwnCert[:]), string(l.OtherCert[:]), l.OwnSession, l.OtherSession)
}

func (l Link) sign(mesh string, key ed25519.PrivateKey) string {
	return sign(key, l.text(mesh, Public(key)))
}

// signedBy reports whether sig is the other end's signature. A link without sessions cannot be told from others.
func (l Link) signedBy(mesh string, key PublicKey, sig string) bool {
	if l.OwnSession == "" || l.OtherSession == "" {
		return false
	}
	return verify(key, l.far().text(mesh, key), sig)
}

// A Description is an offer or answer of a link that is up, as the end that makes it sees it.
type Description struct {
	Type                     string // offer or answer
	Own, Other               string // peer ids
	OwnSession, OtherSession string
	Number                   int // of the offer, counted from 1; that of the offer that an answer is about
	SDP                      string
}

func (d Description) text(mesh string, key PublicKey) []byte {
	return fields(descriptionTag, mesh, d.Type, d.Own, d.Other, string(key[:]), d.OwnSession, d.OtherSession, strconv.Itoa(d.Number), d.SDP)
}

// Sign returns the agent's signature of a description of its own, "" without a key.
func (id *Identity) Sign(d Description) string {
	if id.private == nil {
		return ""
	}
	return sign(id.private, d.text(id.mesh, id.public))
}

// SignedBy reports whether a peer that has given this proof has signed the description.
func (d Description) SignedBy(p Proof, sig string) bool {
	return verify(p.Key, d.text(p.Mesh, p.Key), sig)
}

// fields returns strings, each after its length in four bytes, so that no two lists have the same bytes.
func fields(list ...string) []byte {
	var b []byte
	for _, f := range list {
		b = binary.BigEndian.AppendUint32(b, uint32(len(f)))
		b = append(b, f...)
	}
	return slices.Clip(b)
}

func sign(key ed25519.PrivateKey, text []byte) string {
	return base64.StdEncoding.EncodeToString(ed25519.Sign(key, text))
}

func verify(key PublicKey, text []byte, sig string) bool {
	raw, ok := decode(sig)
	return ok && !key.IsZero() && ed25519.Verify(key[:], text, raw)
}
