// Package sock opens the Unix sockets between an agent and its sidecar, so that no other user of the
// machine can reach or impersonate either end. It makes private directories and sockets whose mode is
// never wider than 0600, removes stale sockets but never a live one, and checks the user at the other end.
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
	// ErrPath means that no socket can have the path: it is empty, too long, or not a file name.
	ErrPath = errors.New("unusable socket path")
	// ErrInUse means that another process is listening at the path.
	ErrInUse = errors.New("another process is listening on this socket")
	// ErrNotSocket means that the path holds something other than a socket, which is left as it is.
	ErrNotSocket = errors.New("not a socket")
	// ErrOwner means that the socket file belongs to another user.
	ErrOwner = errors.New("socket belongs to another user")
	// ErrLocked means that another process has kept the directory of a new socket locked.
	ErrLocked = errors.New("another process has locked its directory")
	// ErrPeer means that the process at the other end of a connection runs as another user.
	ErrPeer = errors.New("process at the other end belongs to another user")
	// ErrUnsupported means that this operating system cannot do it. It wraps [errors.ErrUnsupported].
	ErrUnsupported = fmt.Errorf("private Unix sockets: %w", errors.ErrUnsupported)
)

// CheckPath returns an error if no socket can have path: if it is empty, or longer than the kernel's
// sockaddr_un holds (107 bytes on Linux, 103 on macOS; see unix(7)), has a NUL byte, or begins with @. The
// error is a [*fs.PathError] that wraps [ErrPath]. CheckPath does not look at the file system.
//
// Without this check a path that is too long fails as "invalid argument", a NUL byte silently shortens
// the path, and on Linux a leading @ means an abstract socket, which has neither owner nor mode.
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
		return pathError(path, fmt.Errorf("%w: an abstract socket is open to every user; write ./%s for a file of that name",
			ErrPath, path))
	}
	return nil
}

func pathError(path string, err error) error {
	return &fs.PathError{Op: "socket", Path: path, Err: err}
}
