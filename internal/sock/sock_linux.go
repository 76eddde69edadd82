package sock

import (
	"context"
	"net"
	"os"
	"strconv"
	"syscall"
)

// maxPath is the size of sun_path (108) less the NUL that ends it.
const maxPath = 107

// systemParents are the directories that TempDir tries when the environment names no usable one.
func systemParents() []parent {
	return []parent{
		{"/run/user/" + strconv.Itoa(os.Geteuid()), checkPrivate}, // XDG_RUNTIME_DIR on systems with logind
		{"/tmp", checkShared},
		{"/var/tmp", checkShared},
		{"/dev/shm", checkShared}, // writable in containers with a read-only root
	}
}

// listenPrivate binds and listens. On Linux bind gives the file the mode of the socket's own inode less
// the umask, so setting the mode of the descriptor first makes a file that never had a wider one.
// Rejected: changing the umask (it belongs to the whole process, and other goroutines create files),
// chmod by path after bind (too late, and the path may name another file by then), binding in a private
// directory (the path gets longer).
func listenPrivate(path string) (*net.UnixListener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var modeErr error
		if err := c.Control(func(fd uintptr) { modeErr = syscall.Fchmod(int(fd), 0o600) }); err != nil {
			return err
		}
		return modeErr
	}}
	ln, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	return ln.(*net.UnixListener), nil
}

func peerUID(fd int) (int, error) {
	cred, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}

func peerPID(fd int) (int, error) {
	cred, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}
