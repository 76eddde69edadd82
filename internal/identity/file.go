package identity

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// lockWait bounds the wait for another process that changes a file, which takes it milliseconds.
	lockWait = 5 * time.Second
	// lockPause is the time between two attempts.
	lockPause = 2 * time.Millisecond
)

// readFile reads a file of this user, or of root, for which none of the permissions in forbidden are given.
func readFile(path string, most int64, forbidden fs.FileMode) ([]byte, error) {
	if fi, err := os.Stat(path); err == nil && !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path) // to open it could block
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	if err == nil {
		err = checkOwner(fi, forbidden)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	raw, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(raw)) > most {
		err = fmt.Errorf("%s: over %d bytes", path, most)
	}
	return raw, err
}

// maxLinks is how many symbolic links in a row may lead to a file that is not there yet.
const maxLinks = 40

// followLinks returns the path at which a file is, or will be made, to which path may be a symbolic link.
func followLinks(path string) (string, error) {
	for range maxLinks {
		if real, err := filepath.EvalSymlinks(path); !errors.Is(err, fs.ErrNotExist) {
			return real, err
		}
		fi, err := os.Lstat(path)
		if err != nil || fi.Mode()&fs.ModeSymlink == 0 {
			return path, nil // whoever opens it says what is wrong
		}
		if err := checkOwner(fi, 0); err != nil { // else it would be for somebody else to say where a file is made
			return "", fmt.Errorf("%s, a link to nothing: %w", path, err)
		}
		to, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	return "", fmt.Errorf("%s: over %d symbolic links", path, maxLinks)
}

// replaceFile puts a new file with this content in the place of a file, which a symbolic link at path may lead to:
// readers see the old one or the new one, also after a crash of the system. Of two at once for the same file one may
// fail, so callers that can meet lock it.
func replaceFile(path string, content []byte, mode fs.FileMode) error {
	path, err := followLinks(path)
	if err != nil {
		return err
	}
	next := path + ".new" // always the same name, so that crashes leave one such file at most
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return withDirectory(err, next)
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = rename(next, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(next))
	}
	return syncDir(filepath.Dir(path))
}

// withDirectory adds to the error of making a file what to do if its directory does not exist.
func withDirectory(err error, path string) error {
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; make the directory %s first, or choose another", err, filepath.Dir(path))
	}
	return err
}

// lockFile keeps other processes that lock the same file waiting until unlock is called, by whatever symbolic links
// they come to it. The lock is a file beside it, which stays.
func lockFile(path string) (unlock func(), err error) {
	path, err = followLinks(path)
	if err != nil {
		return nil, err
	}
	path += ".lock"
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, withDirectory(err, path)
	}
	for deadline := time.Now().Add(lockWait); ; time.Sleep(lockPause) {
		locked, err := tryLock(f)
		switch {
		case err == nil && locked:
			return func() { _ = f.Close() }, nil
		case err == nil && time.Now().After(deadline):
			err = fmt.Errorf("another process has held the lock for over %v", lockWait)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
	}
}

// settled is the age from which on a file's time tells one content from the next: a file that changes twice within a
// tick of the file system's clock may look the same.
const settled = 2 * time.Second

// cached is what a file says. It is read again only when the file has changed, or may have.
type cached[T any] struct {
	path  string
	parse func([]byte) (T, error)

	mu    sync.Mutex
	seen  fs.FileInfo // as value was read from it; nil if it was too young to tell
	value T
}

// read returns what the file says now.
func (c *cached[T]) read() (T, error) {
	var none T
	c.mu.Lock()
	defer c.mu.Unlock()
	fi, err := os.Stat(c.path)
	if err != nil {
		return none, err
	}
	if c.seen != nil && os.SameFile(fi, c.seen) && fi.ModTime().Equal(c.seen.ModTime()) && fi.Size() == c.seen.Size() {
		return c.value, nil
	}
	looked := time.Now()
	raw, err := readFile(c.path, maxListFile, 0o022)
	if err != nil {
		return none, err
	}
	value, err := c.parse(raw)
	if err != nil {
		return none, fmt.Errorf("%s: %w", c.path, err)
	}
	c.seen, c.value = nil, value
	if looked.Sub(fi.ModTime()) > settled {
		c.seen = fi
	}
	return value, nil
}

// last returns what the file said when it was last read without an error.
func (c *cached[T]) last() T {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.value
}
