//go:build linux || darwin

package sock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	dirPrefix = "mesh-"
	// nameRoom is the length that TempDir leaves for the name of a socket in the directory.
	nameRoom = 16
)

// TempDir makes a new directory that only this user can enter (mode 0700) and returns its absolute
// path, short enough for a socket with a name of up to 16 bytes in it. It is made in the first usable
// one of these: $XDG_RUNTIME_DIR if only this user can write to it, [os.TempDir], and the usual
// temporary directories of the operating system. The caller removes it.
func TempDir() (string, error) { return tempDirIn(parents()) }

// parent is a directory in which TempDir may make one.
type parent struct {
	dir   string
	check func(os.FileInfo) error // the condition for using it; nil: none
}

// parents returns the directories that TempDir tries, in this order. One may be listed twice, under
// different conditions.
func parents() []parent {
	var list []parent
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		list = append(list, parent{dir, checkPrivate})
	}
	return append(append(list, parent{os.TempDir(), nil}), systemParents()...)
}

// checkPrivate returns an error if a directory is not what the XDG base directory specification demands of
// $XDG_RUNTIME_DIR. Under sudo, for example, that often names the directory of the user who called sudo.
func checkPrivate(fi os.FileInfo) error {
	if uid := owner(fi); uid != os.Geteuid() {
		return fmt.Errorf("it belongs to uid %d, and this process is uid %d", uid, os.Geteuid())
	}
	if fi.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("other users can write to it: its mode is %v", fi.Mode())
	}
	return nil
}

// checkShared returns an error if other users can rename or remove what this user makes in a directory.
func checkShared(fi os.FileInfo) error {
	if fi.Mode()&fs.ModeSticky != 0 {
		return nil
	}
	return checkPrivate(fi)
}

func tempDirIn(parents []parent) (string, error) {
	var all error
	seen := make(map[string]bool)
	for _, p := range parents {
		dir, err := p.tempDir()
		if err == nil {
			return dir, nil
		}
		if seen[err.Error()] {
			continue
		}
		seen[err.Error()] = true
		if all != nil {
			err = fmt.Errorf("%w; %w", all, err)
		}
		all = err
	}
	return "", fmt.Errorf("no private directory for a socket: %w; set XDG_RUNTIME_DIR or TMPDIR to a directory "+
		"with a short path that this user can write to", all)
}

// tempDir makes a directory in p. Its errors name p.dir, and nothing that differs from call to call.
func (p parent) tempDir() (string, error) {
	fail := func(err error) (string, error) { return "", &fs.PathError{Op: "mkdir", Path: p.dir, Err: err} }
	abs, err := filepath.Abs(p.dir)
	if err != nil {
		return fail(err)
	}
	if p.check != nil {
		if !filepath.IsAbs(p.dir) {
			return fail(errors.New("it is not an absolute path"))
		}
		fi, err := os.Stat(abs)
		if err != nil {
			return fail(cause(err))
		}
		if err := p.check(fi); err != nil {
			return fail(err)
		}
	}
	const digits = len("4294967295") // the longest suffix of os.MkdirTemp
	if n := len(abs) + len("/"+dirPrefix) + digits + len("/") + nameRoom; n > maxPath {
		return fail(fmt.Errorf("%w: a socket in it needs %d bytes and %d are allowed", ErrPath, n, maxPath))
	}
	dir, err := os.MkdirTemp(abs, dirPrefix)
	if err != nil {
		return fail(cause(err))
	}
	// MkdirTemp asks for 0700, of which an unusual umask may have left less.
	if err := os.Chmod(dir, 0o700); err != nil {
		return fail(errors.Join(cause(err), os.Remove(dir)))
	}
	return dir, nil
}

// cause returns an error of the file system without the call and the path.
func cause(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}
