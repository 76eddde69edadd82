//go:build !linux && !darwin

package sock

import (
	"context"
	"fmt"
	"net"
	"runtime"
)

// maxPath is the size of sun_path on Windows (108) less the NUL that ends it.
const maxPath = 107

// unsupported says that this operating system cannot do what is named. Windows has Unix sockets, but Go
// can neither restrict them to one user there nor get the credentials of the peer, and a socket that is
// open to every user is worse than none.
func unsupported(what string) error {
	return fmt.Errorf("%w: %s on %s (the sidecar can run in process instead)", ErrUnsupported, what, runtime.GOOS)
}

// A Dir is a directory for one socket. There are none on this operating system.
type Dir struct{}

// NewDir returns [ErrUnsupported] on this operating system.
func NewDir() (*Dir, error) { return nil, unsupported("a private directory") }

// Socket is never called on this operating system.
func (*Dir) Socket() string { return "" }

// Remove is never called on this operating system.
func (*Dir) Remove() error { return nil }

// RemoveDir does nothing on this operating system.
func RemoveDir(string) error { return nil }

// Listen returns [ErrUnsupported] on this operating system, or the error of [CheckPath].
func Listen(path string) (net.Listener, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	return nil, pathError(path, unsupported("a private socket"))
}

// Dial returns [ErrUnsupported] on this operating system, or the error of [CheckPath].
func Dial(_ context.Context, path string) (net.Conn, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	return nil, pathError(path, unsupported("a private socket"))
}

// CheckPeer returns [ErrUnsupported] on this operating system.
func CheckPeer(net.Conn) error { return unsupported("peer credentials") }

// WaitPeer returns [ErrUnsupported] on this operating system.
func WaitPeer(context.Context, net.Conn) error { return unsupported("to watch a process") }

// WaitProcess returns [ErrUnsupported] on this operating system.
func WaitProcess(context.Context, int) error { return unsupported("to watch a process") }

// Queued returns 0 on this operating system.
func Queued(net.Conn) int { return 0 }

// Hung returns false on this operating system.
func Hung(net.Conn) bool { return false }

// Ended returns false on this operating system.
func Ended(net.Conn) bool { return false }

// Unread returns false on this operating system.
func Unread(net.Conn) (unread, known bool) { return false, false }

// PeerPID returns false on this operating system.
func PeerPID(net.Conn) (pid int, ok bool) { return 0, false }

// DirOf returns nil.
func DirOf(string) *Dir { return nil }

// Door is never called on this operating system.
func (*Dir) Door() string { return "" }

// Name is never called on this operating system.
func (*Dir) Name() string { return "" }

// Tidy does nothing.
func Tidy(string) {}

// Near fails.
func Near(string) (string, error) { return "", unsupported("sockets") }

// Boot returns "".
func Boot() string { return "" }
