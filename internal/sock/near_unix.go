//go:build linux || darwin

package sock

import (
	"io/fs"
	"path/filepath"
	"strings"
)

// Door returns the path of the other socket.
func (d *Dir) Door() string { return filepath.Join(d.path, doorName) }

// Name returns the name of the directory, by which other processes of this user find it: see [Near].
func (d *Dir) Name() string { return filepath.Base(d.path) }

// Tidy removes the [Dir] of a name if the process that has made it is gone.
func Tidy(name string) {
	if path, err := Near(name); err == nil {
		_ = removeIfAbandoned(filepath.Dir(path))
	}
}

// Near returns the path of the door in a [Dir] that another process of this user has made where this one would make its own. A
// name that is none of a Dir finds nothing, so that one that somebody else has chosen leads to no other socket of this user.
func Near(name string) (path string, err error) {
	number, ok := strings.CutPrefix(name, dirPrefix)
	if ok && number != "" && strings.Trim(number, "0123456789") == "" {
		for _, p := range parents() {
			dir, err := filepath.Abs(p.dir)
			if err == nil && isDir(filepath.Join(dir, name)) {
				return filepath.Join(dir, name, doorName), nil
			}
		}
	}
	return "", &fs.PathError{Op: "find", Path: name, Err: fs.ErrNotExist}
}
