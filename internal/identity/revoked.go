package identity

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// maxListFile is the size of the largest list of keys, in bytes.
const maxListFile = 4 << 20

// revoked is the list of keys that are refused: one a line; what follows a # is a comment.
type revoked struct {
	file cached[map[PublicKey]bool]
}

func (r *revoked) reload() error {
	_, err := r.file.read()
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; restore it, or make an empty one if no key is revoked", err)
	}
	return err
}

func (r *revoked) has(k PublicKey) bool { return r.file.last()[k] }

func parseRevoked(raw []byte) (map[PublicKey]bool, error) {
	keys := make(map[PublicKey]bool)
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		key, err := ParsePublicKey(text)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w; want a public key, as mesh key show prints it", n, err)
		}
		keys[key] = true
	}
	return keys, lines.Err()
}
