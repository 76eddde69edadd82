package identity

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"
)

// A Statement says that the key of a peer belongs to a mesh, until a time. One of the mesh's roots signs it.
type Statement struct {
	Mesh     string `json:"mesh"`
	PeerID   string `json:"peer_id"`
	Key      string `json:"key"`       // base64
	NotAfter int64  `json:"not_after"` // Unix time in seconds
	Sig      string `json:"sig"`       // base64
}

// maxStatementFile is the size of the largest file with a statement, in bytes.
const maxStatementFile = 16 << 10

// NewStatement returns a statement that is signed by a root.
func NewStatement(root ed25519.PrivateKey, mesh, peer string, key PublicKey, notAfter time.Time) Statement {
	st := Statement{Mesh: mesh, PeerID: peer, Key: key.String(), NotAfter: notAfter.Unix()}
	st.Sig = sign(root, st.text())
	return st
}

// ReadStatement reads a file with one statement, as JSON.
func ReadStatement(path string) (st Statement, err error) {
	raw, err := readFile(path, maxStatementFile, 0o022)
	if errors.Is(err, fs.ErrNotExist) {
		return st, fmt.Errorf("%w; make one with: mesh key sign --out FILE", err)
	}
	if err != nil {
		return st, err
	}
	if st, err = parseStatement(raw); err != nil {
		err = fmt.Errorf("%s: %w; make one with: mesh key sign", path, err)
	}
	return st, err
}

// errNotStatement means that a file holds something else than a statement.
var errNotStatement = errors.New("not a statement")

func parseStatement(raw []byte) (st Statement, err error) {
	if err := json.Unmarshal(raw, &st); err != nil {
		return st, fmt.Errorf("%w: %w", errNotStatement, err)
	}
	if st.PeerID == "" || st.Key == "" || st.Sig == "" {
		return st, fmt.Errorf("%w: it has no peer_id, key or sig", errNotStatement)
	}
	return st, nil
}

// WriteFile puts the statement into a file, which others may read, in the place of an older statement about the same
// peer and mesh. It replaces nothing else.
func (st Statement) WriteFile(path string) error {
	old, err := ReadStatement(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, errNotStatement):
		return fmt.Errorf("%s: not replaced: it is %w; choose another file, or remove this one first", path, errNotStatement)
	case err != nil:
		return fmt.Errorf("not replaced: %w", err)
	case old.PeerID != st.PeerID || old.Mesh != st.Mesh:
		return fmt.Errorf("%s: not replaced: it is a statement about peer %q of mesh %q; choose another file, or remove this one first",
			path, old.PeerID, old.Mesh)
	}
	text, err := json.Marshal(st)
	if err != nil {
		return err
	}
	return replaceFile(path, append(text, '\n'), 0o644)
}

func (st Statement) text() []byte {
	return fields(statementTag, st.Mesh, st.PeerID, st.Key, strconv.FormatInt(st.NotAfter, 10))
}

// End returns when the statement expires.
func (st Statement) End() time.Time { return time.Unix(st.NotAfter, 0) }

// about returns why a statement is not about this peer with this key, now.
func (st Statement) about(mesh, peer string, key PublicKey) error {
	switch {
	case st.Mesh != mesh:
		return fmt.Errorf("the statement is about mesh %.100q, and this mesh is %q", st.Mesh, mesh)
	case st.PeerID != peer:
		return fmt.Errorf("the statement is about %.128q", st.PeerID)
	case st.Key != key.String():
		return errors.New("the statement is about another key")
	case !time.Now().Before(st.End()):
		return fmt.Errorf("the statement expired at %s", st.End().UTC().Format(time.RFC3339))
	}
	return nil
}

// Verify returns an error if none of the roots has signed the statement.
func (st Statement) Verify(roots []PublicKey) error {
	_, err := st.signer(roots)
	return err
}

// signer returns the root that has signed the statement.
func (st Statement) signer(roots []PublicKey) (PublicKey, error) {
	for _, root := range roots {
		if verify(root, st.text(), st.Sig) {
			return root, nil
		}
	}
	return PublicKey{}, errors.New("the statement is not signed by a root of this mesh")
}
