package signaling

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"unicode"
	"unicode/utf8"
)

// maxID is the longest peer id in bytes.
const maxID = 128

// LoadKeys reads a file of API keys, {"keys": {"<key>": {"peer_id": "...", "role": "agent"}}}, for Config.Keys. It
// is an error if there is no key, or if one has no valid peer_id or role. Errors name the file and never a key.
func LoadKeys(path string) (map[string]Key, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("API keys: %w", err)
	}
	keys, err := parseKeys(bytes.TrimPrefix(b, []byte("\ufeff"))) // a byte order mark, which some editors write
	if err != nil {
		return nil, fmt.Errorf("API keys: %s: %w", path, err)
	}
	return keys, nil
}

func parseKeys(b []byte) (map[string]Key, error) {
	var file struct {
		Keys map[string]Key `json:"keys"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		// The field of a type error is a path through the object, so it holds the key.
		var te *json.UnmarshalTypeError
		if errors.As(err, &te) {
			const form = `{"keys": {"<key>": {"peer_id": "...", "role": "..."}}}`
			return nil, fmt.Errorf("offset %d: %s instead of the form %s", te.Offset, te.Value, form)
		}
		return nil, err
	}
	if len(file.Keys) == 0 {
		return nil, errors.New("keys: empty or missing")
	}
	for key, k := range file.Keys {
		if err := checkKey(key, k); err != nil {
			return nil, fmt.Errorf("keys: %w", err)
		}
	}
	return file.Keys, nil
}

// checkKey checks one entry. Its errors name the entry by what is not secret in it.
func checkKey(key string, k Key) error {
	if err := checkID(k.PeerID); err != nil {
		return fmt.Errorf("the entry with role %q: peer_id: %w", k.Role, err)
	}
	if k.Role == "" {
		return fmt.Errorf("the entry of peer %q: role: empty", k.PeerID)
	}
	if key == "" {
		return fmt.Errorf("the entry of peer %q: the key itself is empty", k.PeerID)
	}
	return nil
}

// checkID returns why id cannot be a peer id, or nil. Ids are printed in logs and on terminals.
func checkID(id string) error {
	if id == "" {
		return errors.New("empty")
	}
	if len(id) > maxID {
		return fmt.Errorf("%d bytes, at most %d are allowed", len(id), maxID)
	}
	if !utf8.ValidString(id) {
		return errors.New("not valid UTF-8")
	}
	for _, r := range id {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("%U is not printable", r)
		}
	}
	return nil
}

type hashedKey struct {
	hash [sha256.Size]byte
	key  Key
}

func hashKeys(keys map[string]Key) []hashedKey {
	hashed := make([]hashedKey, 0, len(keys))
	for key, k := range keys {
		hashed = append(hashed, hashedKey{sha256.Sum256([]byte(key)), k})
	}
	return hashed
}

// lookup compares presented with every key in constant time, so that the time taken reveals nothing about any
// of them; a map would be faster, but whether its timing is harmless would have to be argued. Hashing makes
// the lengths equal.
func lookup(keys []hashedKey, presented string) (Key, bool) {
	hash := sha256.Sum256([]byte(presented))
	var found Key
	ok := false
	for i := range keys {
		if subtle.ConstantTimeCompare(keys[i].hash[:], hash[:]) == 1 {
			found, ok = keys[i].key, true
		}
	}
	return found, ok
}
