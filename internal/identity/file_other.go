//go:build !unix && !windows

package identity

import (
	"io/fs"
	"os"
)

func checkOwner(fs.FileInfo, fs.FileMode) error { return nil }

// tryLock does not lock: where there are no locks there are no other processes either.
func tryLock(*os.File) (bool, error) { return true, nil }

func rename(from, to string) error { return os.Rename(from, to) }

func syncDir(string) error { return nil }
