// Package identity decides who is at the other end of a peer link.
//
// An agent may have an Ed25519 key. Over a link whose DTLS handshake is done, each end signs what only that link has:
// the certificates of both ends, the ids, the roles, the sessions. Whoever relays between two links holds other
// certificates, so no signature fits. A policy says which keys are taken for which peer. docs/protocol.md, "Identity",
// has every byte.
//
// Keys, statements and lists are files: settings name them, so that they mean the same in a forked sidecar and no
// secret passes through an environment.
package identity

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A FileError is a file that this agent cannot use now. It says nothing about the peer that it was needed for.
type FileError struct{ Err error }

func (e *FileError) Error() string { return e.Err.Error() }
func (e *FileError) Unwrap() error { return e.Err }

// An Identity is one agent's key and policy. Its methods may be called from any goroutine; those that read a file say
// so.
type Identity struct {
	mesh     string
	policy   Policy
	required bool
	private  ed25519.PrivateKey // nil without a key
	public   PublicKey
	roots    []PublicKey
	known    *KnownPeers // nil but for Known
	revoked  *revoked    // nil if there is no file

	membershipFile string
	claims         *claims // nil without a key

	mu         sync.Mutex
	membership *Statement // the agent's own; nil if it has none
}

// Open reads the files that the settings name. The error is a *FieldError.
func Open(s Settings) (*Identity, error) {
	id := &Identity{mesh: s.MeshName, policy: s.Policy, required: s.Required, membershipFile: s.MembershipFile}
	if id.policy == "" {
		id.policy = Off
	}
	for _, step := range []func(Settings) error{checkName, checkPolicy, id.openKey, id.openRoots, id.openMembership, id.openKnown, id.openRevoked} {
		if err := step(s); err != nil {
			return nil, err
		}
	}
	return id, nil
}

func (id *Identity) openKey(s Settings) error {
	if s.KeyFile == "" {
		if s.MembershipFile != "" {
			return &FieldError{Field: "KeyFile", Err: errors.New("empty, but MembershipFile is a statement about a key")}
		}
		return nil
	}
	key, err := ReadKey(s.KeyFile)
	if err != nil {
		return &FieldError{"KeyFile", s.KeyFile, err}
	}
	id.private, id.public = key, Public(key)
	id.claims = &claims{path: s.KeyFile + ".ids", mesh: s.MeshName}
	return nil
}

func (id *Identity) openRoots(s Settings) error {
	for _, text := range s.Roots {
		root, err := ParsePublicKey(text)
		if err != nil {
			return &FieldError{"Roots", text, err}
		}
		id.roots = append(id.roots, root)
	}
	return nil
}

func (id *Identity) openMembership(s Settings) error {
	if s.MembershipFile == "" {
		return nil
	}
	st, err := id.readMembership()
	if err != nil {
		return &FieldError{"MembershipFile", s.MembershipFile, err}
	}
	id.membership = &st
	return nil
}

// readMembership reads the agent's own statement, and checks it as peers do.
func (id *Identity) readMembership() (Statement, error) {
	st, err := ReadStatement(id.membershipFile)
	if err != nil {
		return st, err
	}
	if _, err := id.checkStatement(st, st.PeerID, id.public); err != nil {
		return st, fmt.Errorf("%s: %w; make a new one with: mesh key sign", id.membershipFile, err)
	}
	return st, nil
}

// checkStatement returns the root that has signed a statement about a peer with this key, or what is wrong with it.
// Without roots nobody can tell whether its signature is right.
func (id *Identity) checkStatement(st Statement, peer string, key PublicKey) (root PublicKey, err error) {
	if err := st.about(id.mesh, peer, key); err != nil || len(id.roots) == 0 {
		return root, err
	}
	return st.signer(id.roots)
}

func (id *Identity) openKnown(s Settings) (err error) {
	if id.policy != Known {
		return nil
	}
	if id.known, err = OpenKnownPeers(s.KnownPeersFile, s.MeshName); err != nil {
		return &FieldError{"KnownPeersFile", s.KnownPeersFile, err}
	}
	return nil
}

func (id *Identity) openRevoked(s Settings) error {
	if s.RevokedFile == "" {
		return nil
	}
	id.revoked = &revoked{file: cached[map[PublicKey]bool]{path: s.RevokedFile, parse: parseRevoked}}
	if err := id.revoked.reload(); err != nil {
		return &FieldError{"RevokedFile", s.RevokedFile, err}
	}
	return nil
}

// Forgetful reports whether Open has made the file of known peers because there was none: every peer is new then, also
// one whose key was known before the file got lost.
func (id *Identity) Forgetful() bool { return id.known != nil && id.known.made }

// Key returns the agent's own key; the zero key if it has none.
func (id *Identity) Key() PublicKey { return id.public }

// Claim returns nil if this agent may be the peer of this id. The signaling server assigns ids, and must not get a
// signature for another one: a key signs for the id of its statement, for the one that it certifies itself, or for the
// first one that it was ever given, which is kept in a file beside the key. Claim may read and write that file.
func (id *Identity) Claim(peer string) error {
	id.mu.Lock()
	st := id.membership
	id.mu.Unlock()
	switch {
	case Certified(peer):
		if peer != id.public.ID() {
			return fmt.Errorf("the id %q certifies a key, and this agent has another one or none", peer)
		}
		return nil
	case id.private == nil:
		return nil
	case st != nil:
		if peer != st.PeerID {
			return fmt.Errorf("the id is %q, and the statement in %s is about %q", peer, id.membershipFile, st.PeerID)
		}
		return nil
	}
	return id.claims.claim(peer)
}

// OwnID returns the only id that Claim accepts, but for one that the key certifies; "" if that is any. known is false if
// that is not known before Claim has been asked.
func (id *Identity) OwnID() (peer string, known bool) {
	id.mu.Lock()
	st := id.membership
	id.mu.Unlock()
	switch {
	case id.private == nil:
		return "", true
	case st != nil:
		return st.PeerID, true
	}
	peer, _, err := id.claims.read()
	return peer, err == nil && peer != ""
}

// A Proof is what a peer has shown of itself.
type Proof struct {
	Key   PublicKey // zero if it has shown none
	Mesh  string    // the name with which it signs
	Root  PublicKey // that has signed its statement; zero if none is needed
	Until time.Time // when it ends; zero if it does not
}

// Shown is the identity in a hello.
type Shown struct {
	Mesh   *string // nil for the reader's own
	Key    string  // base64
	Sig    string  // base64
	Member *Statement
}

// Verify decides about the peer at the other end of a link, by what it has shown, nil if nothing. It reads the files
// that have changed, and writes that of known peers before it accepts a new one. Its error says what is wrong with
// the peer, or is a *FileError.
func (id *Identity) Verify(l Link, shown *Shown) (Proof, error) {
	if shown == nil {
		return Proof{}, id.without(l.Other)
	}
	key, err := ParsePublicKey(shown.Key)
	if err != nil {
		return Proof{}, fmt.Errorf("its key: %w", err)
	}
	proof := Proof{Key: key, Mesh: id.mesh}
	if shown.Mesh != nil {
		proof.Mesh = *shown.Mesh
	}
	if err := CheckMeshName(proof.Mesh); err != nil {
		return Proof{}, fmt.Errorf("its mesh: %w", err)
	}
	switch {
	case !l.signedBy(proof.Mesh, key, shown.Sig):
		return Proof{}, errors.New("wrong signature: the link does not end at the agent with that key")
	case proof.Mesh != id.mesh && (id.mesh != "" || id.policy != Off):
		return Proof{}, fmt.Errorf("it is of mesh %.100q, and this agent is of %q", proof.Mesh, id.mesh)
	case Certified(l.Other) && l.Other != key.ID():
		return Proof{}, errors.New("its key is not the one that its id certifies")
	}
	if id.revoked != nil {
		_ = id.revoked.reload() // Reload reports the error
	}
	if err := id.Check(proof); err != nil {
		return Proof{}, err
	}
	switch id.policy {
	case Known:
		err = id.known.Pin(l.Other, key)
	case Member:
		proof, err = id.Renew(l.Other, proof, shown.Member)
	}
	if err != nil {
		return Proof{}, err
	}
	return proof, nil
}

var errNone = errors.New("it has shown no identity")

// without returns why a peer needs an identity, nil if it does not.
func (id *Identity) without(peer string) error {
	switch {
	case Certified(peer):
		return fmt.Errorf("%w, and its id certifies a key", errNone)
	case id.required || id.policy == Member:
		return fmt.Errorf("%w, and this agent requires one", errNone)
	case id.policy != Known:
		return nil
	}
	_, known, err := id.known.Lookup(peer)
	if err == nil && known {
		err = fmt.Errorf("%w, and %s has a key for it", errNone, id.known.path)
	}
	return err
}

// Renew returns the proof that a statement gives a peer with a proven key.
func (id *Identity) Renew(peer string, p Proof, st *Statement) (Proof, error) {
	switch {
	case id.policy != Member:
		return p, nil
	case st == nil:
		return p, errors.New("not a member: it has shown no statement of a root")
	}
	root, err := id.checkStatement(*st, peer, p.Key)
	if err != nil {
		return p, fmt.Errorf("not a member: %w", err)
	}
	renewed := p
	renewed.Root, renewed.Until = root, st.End()
	if err := id.Check(renewed); err != nil {
		return p, err
	}
	return renewed, nil
}

// Check returns why a proof no longer counts: its end, or the list of revoked keys as of the last [Identity.Reload].
func (id *Identity) Check(p Proof) error {
	if !p.Until.IsZero() && !time.Now().Before(p.Until) {
		return fmt.Errorf("its membership expired at %s", p.Until.UTC().Format(time.RFC3339))
	}
	switch {
	case id.revoked == nil:
	case id.revoked.has(p.Key):
		return errors.New("its key is revoked")
	case id.revoked.has(p.Root):
		return errors.New("the key of the root that has signed its statement is revoked")
	}
	return nil
}

// Displaces reports whether a peer with one proof may end the link to the same peer with another proof: with the same
// key, or, where roots or the known peers vouch for keys, with any that they vouch for. So the first key after the old
// one was forgotten takes over at once.
func (id *Identity) Displaces(next, present Proof) bool {
	return present.Key.IsZero() || next.Key == present.Key || id.policy != Off && !next.Key.IsZero()
}

// Show returns the agent's identity for a link, nil without a key.
func (id *Identity) Show(l Link) *Shown {
	if id.private == nil {
		return nil
	}
	return &Shown{Mesh: &id.mesh, Key: id.public.String(), Sig: l.sign(id.mesh, id.private), Member: id.Membership()}
}

// Membership returns the agent's own statement, nil if it has none.
func (id *Identity) Membership() *Statement {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.membership
}

// Watches reports whether time or files may end a proof, so that Reload and Check are to be called now and then.
func (id *Identity) Watches() bool {
	return id.policy == Member || id.revoked != nil || id.membershipFile != ""
}

// Reload reads the files that have changed. renewed is the agent's own statement if there is a newer one. After an
// error what was read before goes on to count.
func (id *Identity) Reload() (renewed *Statement, err error) {
	if id.revoked != nil {
		err = id.revoked.reload()
	}
	if id.membershipFile == "" {
		return nil, err
	}
	st, readErr := id.readMembership()
	if readErr != nil {
		return nil, errors.Join(err, readErr)
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	switch {
	case st.PeerID != id.membership.PeerID:
		return nil, errors.Join(err, fmt.Errorf("%s: the statement is about %q, and this agent is %q", id.membershipFile, st.PeerID, id.membership.PeerID))
	case st.NotAfter > id.membership.NotAfter:
		id.membership = &st
		return &st, err
	}
	return nil, err
}
