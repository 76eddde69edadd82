//go:build linux || darwin

package sock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	dirPrefix = "mesh-"
	// lockName is the file in a Dir that is locked for as long as the process lives that has made it.
	lockName = "lock"
	// socketName is that of the socket in a Dir, doorName that of another one, for processes of this user on this host, and neighbours are
	// those that Listen uses for a moment.
	socketName = "s"
	doorName   = "d"
	neighbours = "~#+"
	// maxEntries bounds how many files of a shared directory are looked at for those that nobody needs any more.
	maxEntries = 10_000
	// dirTries bounds the attempts to make a Dir that another process takes for an abandoned one before it is locked.
	dirTries = 3
)

// A Dir is a directory for one socket, and one door, which only this user can enter (mode 0700).
type Dir struct {
	path string
	lock *os.File
}

// NewDir makes a directory whose path is absolute, and short enough for the socket. It is made in the first usable one of
// these: $XDG_RUNTIME_DIR if only this user can write to it, [os.TempDir], and the usual temporary directories of the
// operating system. What processes have left there that were killed is removed. The caller calls Remove.
func NewDir() (*Dir, error) { return newDirIn(parents()) }

func newDirIn(parents []parent) (*Dir, error) {
	for range dirTries {
		path, err := tempDirIn(parents)
		if err != nil {
			return nil, err
		}
		removeAbandoned(filepath.Dir(path), path)
		if d, err := own(path); d != nil || err != nil {
			return d, err
		}
	}
	return nil, errors.New("no private directory for a socket: each new one was removed by another process")
}

// own locks a new directory. It returns nil if another process was faster, and has removed it.
func own(path string) (*Dir, error) {
	name := filepath.Join(path, lockName)
	f, err := os.OpenFile(name, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("no private directory for a socket: %w", err), os.Remove(path))
	}
	d := &Dir{path, f}
	if err := tryLock(f); errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, f.Close()
	} // without locks, as on some file systems of networks, nobody else can remove it
	mine, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, d.Remove())
	}
	if fi, err := os.Lstat(name); err != nil || !os.SameFile(fi, mine) {
		return nil, f.Close()
	}
	return d, nil
}

// Socket returns the path of the socket.
func (d *Dir) Socket() string { return filepath.Join(d.path, socketName) }

// DirOf returns the Dir in which a socket is that another process has made, nil if it is in none. It is not to be removed.
func DirOf(socket string) *Dir {
	if path := filepath.Dir(socket); isDir(path) && filepath.Base(socket) == socketName {
		return &Dir{path: path}
	}
	return nil
}

// Remove removes the directory with the socket. It needs no file descriptor, and may be called more than once.
func (d *Dir) Remove() error {
	err := removeDir(d.path)
	_ = d.lock.Close() // only read from: what counts is that it is closed, perhaps already
	return err
}

// removeDir removes a directory with what can be in one of ours, and nothing else.
func removeDir(path string) error {
	for _, name := range append(strings.Split(neighbours, ""), socketName, doorName, lockName) {
		if err := os.Remove(filepath.Join(path, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// RemoveDir removes the Dir of a socket, for the process that listens there: the one that has made it may be gone. It
// leaves any other directory alone.
func RemoveDir(socket string) error {
	if path := filepath.Dir(socket); isDir(path) && filepath.Base(socket) == socketName {
		return removeDir(path)
	}
	return nil
}

// isDir reports whether a path can be that of a Dir of this user.
func isDir(path string) bool {
	fi, err := os.Lstat(path)
	return err == nil && strings.HasPrefix(filepath.Base(path), dirPrefix) && fi.IsDir() && fi.Mode().Perm() == 0o700 && owner(fi) == os.Geteuid()
}

// removeIfAbandoned removes a Dir whose process is gone.
func removeIfAbandoned(path string) error {
	if !isDir(path) {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	if tryLock(f) != nil {
		return nil
	}
	return removeDir(path)
}

// removeAbandoned does that for all in a directory but one. What cannot be removed is left for the next time.
func removeAbandoned(parent, but string) {
	f, err := os.Open(parent)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	names, _ := f.Readdirnames(maxEntries)
	for _, name := range names {
		if path := filepath.Join(parent, name); strings.HasPrefix(name, dirPrefix) && path != but {
			_ = removeIfAbandoned(path)
		}
	}
}

// tryLock locks a file. The error is EWOULDBLOCK if another process has it locked.
func tryLock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }

// parent is a directory in which NewDir may make one.
type parent struct {
	dir   string
	check func(os.FileInfo) error // the condition for using it; nil: none
}

// parents returns the directories that NewDir tries, in this order. One may be listed twice, under
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
	if n := len(abs) + len("/"+dirPrefix) + digits + len("/"+socketName); n > maxPath {
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
