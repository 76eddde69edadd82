package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
)

// claims is the file beside a key that keeps which peer the key's agent is: a line for each mesh, with the mesh's name
// and the id, both quoted as in Go.
type claims struct {
	path string
	mesh string

	mu sync.Mutex
	id string // once it is known
}

// claim returns nil if the agent is this peer, or was none until now.
func (c *claims) claim(peer string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id == "" {
		if err := c.loadLocked(peer); err != nil {
			return fmt.Errorf("keep the id of this agent: %w; a membership statement, or the id that certifies the key, needs no such file", err)
		}
	}
	if c.id != peer {
		return fmt.Errorf("the id is %q, and the key signs for %q, as %s says; if this agent was renamed, remove that line", peer, c.id, c.path)
	}
	return nil
}

// loadLocked reads the id, and makes peer the id if there is none.
func (c *claims) loadLocked(peer string) error {
	id, _, err := c.read()
	if err != nil || id != "" {
		c.id = id
		return err
	}
	unlock, err := lockFile(c.path)
	if err != nil {
		return err
	}
	defer unlock()
	id, raw, err := c.read() // another process may have been faster
	if err == nil && id == "" {
		id, err = peer, replaceFile(c.path, addClaim(raw, c.mesh, peer), 0o600)
	}
	if err != nil {
		return err
	}
	c.id = id
	return nil
}

// read returns the id that the file has for the mesh, "" if it has none, and all of the file.
func (c *claims) read() (id string, raw []byte, err error) {
	raw, err = readFile(c.path, maxListFile, 0o022)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, err
	}
	if id, err = findClaim(string(raw), c.mesh); err != nil {
		err = fmt.Errorf("%s: %w", c.path, err)
	}
	return id, raw, err
}

// findClaim returns the id that the text of a file has for a mesh, "" if it has none.
func findClaim(text, mesh string) (id string, err error) {
	for i, line := range strings.Split(text, "\n") {
		if strings.TrimSpace(line) == "" {
			continue
		}
		name, peer, ok := cutClaim(line)
		if !ok {
			return "", fmt.Errorf("line %d: want the name of a mesh and a peer id, both quoted; correct the line, or remove it", i+1)
		}
		if name == mesh {
			return peer, nil
		}
	}
	return "", nil
}

// addClaim returns the text of a file with one more line.
func addClaim(text []byte, mesh, peer string) []byte {
	if n := len(text); n > 0 && text[n-1] != '\n' {
		text = append(text, '\n')
	}
	return fmt.Appendf(text, "%q %q\n", mesh, peer)
}

// cutClaim returns the name of a mesh and the id in a line.
func cutClaim(line string) (mesh, peer string, ok bool) {
	mesh, rest, err := cutID(line)
	if err == nil {
		peer, rest, err = cutID(strings.TrimSpace(rest))
	}
	return mesh, peer, err == nil && peer != "" && strings.TrimSpace(rest) == ""
}
