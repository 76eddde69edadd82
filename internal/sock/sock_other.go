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

// Windows has Unix sockets, but Go gives no way to restrict them to one user there and no credentials
// of the peer. Rather than open a socket to everybody, nothing is opened.
func unsupported(what string) error {
	return fmt.Errorf("%w: %s on %s (the sidecar can run in process there)", ErrUnsupported, what, runtime.GOOS)
}

// TempDir returns [ErrUnsupported] on this operating system.
func TempDir() (string, error) { return "", unsupported("a directory of one user") }

// Listen returns [ErrUnsupported] on this operating system, or what [CheckPath] has to say.
func Listen(path string) (net.Listener, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	return nil, pathError(path, unsupported("a socket of one user"))
}

// Dial returns [ErrUnsupported] on this operating system, or what [CheckPath] has to say.
func Dial(_ context.Context, path string) (net.Conn, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	return nil, pathError(path, unsupported("a socket of one user"))
}

// CheckPeer returns [ErrUnsupported] on this operating system.
func CheckPeer(net.Conn) error { return unsupported("peer credentials") }

// PeerPID returns false on this operating system.
func PeerPID(net.Conn) (pid int, ok bool) { return 0, false }
