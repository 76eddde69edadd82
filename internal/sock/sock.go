// Package sock opens the Unix sockets that join an agent to its sidecar, so that no other user of the
// machine can reach or impersonate either end: private directories, a mode that is never wider than
// 0600, removal of leftovers without stealing a live socket, and a check of who is on the other end.
//
// It works on Linux and macOS. Elsewhere every function but [CheckPath] fails, with [ErrUnsupported] if
// it returns an error.
package sock

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
)

var (
	// ErrPath reports a socket path that no socket can have: empty, too long, or not a file name.
	ErrPath = errors.New("unusable socket path")
	// ErrInUse reports a path on which another process is listening.
	ErrInUse = errors.New("another process is listening on this socket; stop it or choose another path")
	// ErrNotSocket reports a path that holds something other than a socket. It is left as it is.
	ErrNotSocket = errors.New("not a socket; remove it or choose another path")
	// ErrOwner reports a socket file that belongs to another user.
	ErrOwner = errors.New("socket belongs to another user")
	// ErrPeer reports a connection whose other end runs as another user.
	ErrPeer = errors.New("process on the other end belongs to another user")
	// ErrUnsupported reports what this operating system cannot do. It is also [errors.ErrUnsupported].
	ErrUnsupported = fmt.Errorf("private Unix sockets: %w", errors.ErrUnsupported)
)

// CheckPath reports whether path can be the path of a socket here: not empty, and no longer than the
// kernel's sockaddr_un holds (107 bytes on Linux, 103 on macOS; see unix(7)). Its error is a
// [*fs.PathError] that wraps [ErrPath]; the file system is not looked at.
//
// Without it an over-long path fails as "invalid argument", a NUL byte silently shortens the path, and
// on Linux a leading @ means an abstract socket, which has neither owner nor mode.
func CheckPath(path string) error {
	switch {
	case path == "":
		return pathError(path, fmt.Errorf("%w: it is empty", ErrPath))
	case len(path) > maxPath:
		return pathError(path, fmt.Errorf("%w: it is %d bytes long and %s allows %d; choose a shorter directory",
			ErrPath, len(path), runtime.GOOS, maxPath))
	case strings.ContainsRune(path, 0):
		return pathError(path, fmt.Errorf("%w: it contains a NUL byte", ErrPath))
	case path[0] == '@':
		return pathError(path, fmt.Errorf("%w: an abstract socket is open to every user; write ./%s if a file is meant",
			ErrPath, path))
	}
	return nil
}

func pathError(path string, err error) error {
	return &fs.PathError{Op: "socket", Path: path, Err: err}
}
