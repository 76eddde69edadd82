//go:build unix

package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// checkOwner returns an error for a file that another user could have written, or read what only this one may.
func checkOwner(fi fs.FileInfo, forbidden fs.FileMode) error {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		if uid := int(st.Uid); uid != os.Geteuid() && uid != 0 {
			return fmt.Errorf("it belongs to uid %d, and this process is uid %d", uid, os.Geteuid())
		}
	}
	if mode := fi.Mode().Perm(); mode&forbidden != 0 {
		return fmt.Errorf("other users have access to it: its mode is %#o; run: chmod %o", mode, mode&^forbidden)
	}
	return nil
}

// tryLock locks a file, or returns false if another process has it locked.
func tryLock(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

func rename(from, to string) error { return os.Rename(from, to) }

// syncDir makes a rename in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) { // a file system that does not know this
		err = nil
	}
	return errors.Join(err, d.Close())
}
