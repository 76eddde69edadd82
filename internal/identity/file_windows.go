package identity

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/windows"
)

// checkOwner leaves it to the directory's access control list who can read and write a file.
func checkOwner(fs.FileInfo, fs.FileMode) error { return nil }

// tryLock locks a file, or returns false if another process has it locked.
func tryLock(f *os.File) (bool, error) {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, new(windows.Overlapped))
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return false, nil
	}
	return err == nil, err
}

// rename waits until nobody reads the file that is to be replaced: Windows refuses meanwhile.
func rename(from, to string) error {
	for deadline := time.Now().Add(lockWait); ; time.Sleep(lockPause) {
		err := os.Rename(from, to)
		busy := errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_ACCESS_DENIED)
		if !busy || time.Now().After(deadline) {
			return err
		}
	}
}

// syncDir does nothing: Windows does not flush directories.
func syncDir(string) error { return nil }
