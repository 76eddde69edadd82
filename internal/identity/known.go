package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// maxKnown is how many peers a file of known peers holds. A full one takes no further ones: it never forgets.
const maxKnown = 10_000

// knownHeader begins the first line of the file, which names the mesh.
const knownHeader = "# known peers of mesh "

// KnownPeers is a file with the keys of peers: a line for each, with its id and its key. Several processes may share
// it.
type KnownPeers struct {
	path string
	mesh string
	file cached[map[string]PublicKey]
	made bool // by OpenKnownPeers, since there was none
}

// OpenKnownPeers opens the file of a mesh, and makes it if there is none.
func OpenKnownPeers(path, mesh string) (*KnownPeers, error) {
	k := &KnownPeers{path: path, mesh: mesh}
	k.file = cached[map[string]PublicKey]{path: path, parse: k.parse}
	_, err := k.file.read()
	if errors.Is(err, fs.ErrNotExist) {
		k.made, err = k.create()
	}
	return k, err
}

// create makes the file, unless another process was faster.
func (k *KnownPeers) create() (made bool, err error) {
	unlock, err := lockFile(k.path)
	if err != nil {
		return false, err
	}
	defer unlock()
	if _, err := k.file.read(); !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	err = replaceFile(k.path, k.format(nil), 0o600)
	return err == nil, err
}

// Lookup returns the key of a peer. It reads the file if it has changed.
func (k *KnownPeers) Lookup(peer string) (key PublicKey, known bool, err error) {
	all, err := k.file.read()
	if err != nil {
		return key, false, &FileError{fmt.Errorf("known peers: %w", err)}
	}
	key, known = all[peer]
	return key, known, nil
}

// ReadKnownPeers returns the name of the mesh that a file is of, and the ids and keys in it.
func ReadKnownPeers(path string) (mesh string, all map[string]PublicKey, err error) {
	raw, err := readFile(path, maxListFile, 0o022)
	if err != nil {
		return "", nil, err
	}
	if mesh, all, err = parseKnown(string(raw)); err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return mesh, all, err
}

// Pin returns nil if a peer has this key, or had none until now: then the file has it when Pin returns, durably.
func (k *KnownPeers) Pin(peer string, key PublicKey) error {
	have, known, err := k.Lookup(peer)
	if err == nil && !known {
		have, err = k.add(peer, key)
	}
	if err == nil && have != key {
		err = fmt.Errorf("its key has changed: %s has %v for it, and it has shown %v; if that is right, run: mesh key known forget",
			k.path, have, key)
	}
	return err
}

// errFull means that a file has no room for one more peer.
var errFull = fmt.Errorf("full: it has room for %d peers and %d bytes; remove some with: mesh key known forget", maxKnown, maxListFile)

// add gives a peer a key, unless another process was faster, and returns the one that it has then.
func (k *KnownPeers) add(peer string, key PublicKey) (has PublicKey, err error) {
	err = k.change(func(all map[string]PublicKey) (changed bool) {
		known := false
		if has, known = all[peer]; !known {
			all[peer], has = key, key
		}
		return !known
	})
	switch {
	case errors.Is(err, errFull):
		err = fmt.Errorf("%s: %w", k.path, err)
	case err != nil:
		err = &FileError{fmt.Errorf("known peers: %w", err)}
	}
	return has, err
}

// Forget removes a peer, so that the next key that it shows is pinned. It reports whether the peer was known.
func (k *KnownPeers) Forget(peer string) (known bool, err error) {
	err = k.change(func(all map[string]PublicKey) (changed bool) {
		_, known = all[peer]
		delete(all, peer)
		return known
	})
	return known, err
}

// change rewrites the file, which no other process changes meanwhile, if edit changes something.
func (k *KnownPeers) change(edit func(map[string]PublicKey) (changed bool)) error {
	unlock, err := lockFile(k.path)
	if err != nil {
		return err
	}
	defer unlock()
	all, err := k.file.read()
	if err != nil {
		return err
	}
	all = maps.Clone(all)
	had := len(all)
	if !edit(all) {
		return nil
	}
	text := k.format(all)
	if len(all) > had && (len(all) > maxKnown || len(text) > maxListFile) {
		return errFull
	}
	return replaceFile(k.path, text, 0o600)
}

func (k *KnownPeers) format(all map[string]PublicKey) []byte {
	var b bytes.Buffer
	b.WriteString(knownHeader + strconv.Quote(k.mesh) + "\n")
	for _, peer := range slices.Sorted(maps.Keys(all)) {
		b.WriteString(QuoteID(peer) + " " + all[peer].String() + "\n")
	}
	return b.Bytes()
}

func (k *KnownPeers) parse(raw []byte) (map[string]PublicKey, error) {
	mesh, all, err := parseKnown(string(raw))
	if err == nil && mesh != k.mesh {
		err = fmt.Errorf("the file is of mesh %q, and this mesh is %q; choose a file for each mesh", mesh, k.mesh)
	}
	return all, err
}

// parseKnown reads the text of a file. One that does not name its mesh is damaged: an empty one would let any key pass
// for that of a peer that was known.
func parseKnown(text string) (mesh string, all map[string]PublicKey, err error) {
	first, rest, _ := strings.Cut(text, "\n")
	name, ok := strings.CutPrefix(strings.TrimSuffix(first, "\r"), knownHeader)
	if mesh, err = strconv.Unquote(name); !ok || err != nil {
		return "", nil, fmt.Errorf("line 1: want %q and the name of the mesh, quoted; restore the file, or the line if the rest is right", knownHeader)
	}
	all = make(map[string]PublicKey)
	for i, line := range strings.Split(rest, "\n") {
		if err := parseKnownPeer(all, strings.TrimSuffix(line, "\r")); err != nil {
			return "", nil, fmt.Errorf("line %d: %w; restore the file, or remove the line: its peer is new then", i+2, err)
		}
	}
	return mesh, all, nil
}

func parseKnownPeer(all map[string]PublicKey, line string) error {
	if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
		return nil
	}
	peer, rest, err := cutID(line)
	if err != nil {
		return err
	}
	key, err := ParsePublicKey(strings.TrimSpace(rest))
	if err != nil {
		return fmt.Errorf("the key of %q: %w", peer, err)
	}
	if have, twice := all[peer]; twice && have != key {
		return fmt.Errorf("%q has another key above", peer)
	}
	all[peer] = key
	return nil
}

// QuoteID returns an id as it stands in a file: as it is, or quoted as in Go if it could be taken for something else.
func QuoteID(id string) string {
	if q := strconv.Quote(id); q != `"`+id+`"` || id == "" || strings.ContainsAny(id, "# ") {
		return q
	}
	return id
}

// cutID returns the id with which a line begins, and what follows it.
func cutID(line string) (id, rest string, err error) {
	if !strings.HasPrefix(line, `"`) {
		if id, rest, _ = strings.Cut(line, " "); id == "" {
			return "", "", errors.New("the line begins with a space")
		}
		return id, rest, nil
	}
	quoted, err := strconv.QuotedPrefix(line)
	if err == nil {
		id, err = strconv.Unquote(quoted)
	}
	if err != nil {
		return "", "", errors.New("the quoted id has no end")
	}
	return id, line[len(quoted):], nil
}
