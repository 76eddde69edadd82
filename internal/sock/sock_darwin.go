package sock

import (
	"errors"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxPath is the size of sun_path (104) less the NUL that ends it.
const maxPath = 103

// systemParents are the directories that TempDir tries when the environment names no usable one.
func systemParents() []parent { return []parent{{"/tmp", checkShared}, {"/var/tmp", checkShared}} }

// listenPrivate binds, narrows the mode and only then listens: before listen every connect is refused,
// so the mode that bind derives from the umask lets no other user in. (Linux takes the mode of the
// descriptor instead; macOS has no fchmod of sockets.) The net package has no hook between bind and
// listen, hence the system calls.
func listenPrivate(path string) (*net.UnixListener, error) {
	f, err := unixSocket(path)
	if err != nil {
		return nil, listenError(path, "socket", err)
	}
	defer f.Close() // FileListener duplicates the descriptor
	fd := int(f.Fd())
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		return nil, listenError(path, "bind", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	if err := syscall.Listen(fd, syscall.SOMAXCONN); err != nil {
		return nil, errors.Join(listenError(path, "listen", err), os.Remove(path))
	}
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	return ln.(*net.UnixListener), nil
}

func unixSocket(name string) (*os.File, error) {
	syscall.ForkLock.RLock() // macOS cannot create a descriptor with close-on-exec already set
	defer syscall.ForkLock.RUnlock()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name), nil
}

func listenError(path, call string, err error) error {
	return &net.OpError{
		Op: "listen", Net: "unix", Addr: &net.UnixAddr{Name: path, Net: "unix"},
		Err: os.NewSyscallError(call, err),
	}
}

func peerUID(fd int) (int, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}

func peerPID(fd int) (int, error) {
	return unix.GetsockoptInt(fd, unix.SOL_LOCAL, unix.LOCAL_PEERPID)
}

// lockHolder returns "": macOS does not tell who has locked a file with flock.
func lockHolder(*os.File) string { return "" }
