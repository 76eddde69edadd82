//go:build linux || darwin

package sock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lockWait bounds how long Listen blocks for another Listen in the same directory, which holds the
	// lock for well under a millisecond.
	lockWait = time.Second
	// lockPause is the time between two attempts to get that lock.
	lockPause = time.Millisecond
	// probeWait bounds the attempt to connect to what may be a stale socket.
	probeWait = time.Second
)

// Listen listens on a Unix socket at path, which has mode 0600 from the first moment at which it accepts
// connections. The umask, which belongs to the whole process, is neither needed nor changed. The file
// appears at path once it accepts connections, not before: programs watch for the file, and then connect
// to it once.
//
// A stale socket that an earlier process left at path is removed, but only if it is this user's and no
// process listens on it: otherwise the error wraps [ErrOwner] or [ErrInUse]. To find out, Listen connects
// to it and closes the connection, so a listener must tolerate a connection without data. Anything but a
// socket is left alone ([ErrNotSocket]). Calls of Listen in one directory exclude each other, also from
// several processes: of two that find the same stale socket exactly one gets the path.
//
// An error about what others hold (ErrInUse, ErrNotSocket, ErrOwner, ErrLocked) says who, as far as the system tells, and
// where other users can write, which path would be free of them.
//
// Closing the listener removes the socket file unless another file has replaced it. Accept does not check
// which user connects: call [CheckPeer].
func Listen(path string) (net.Listener, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(path) // the working directory may have changed by the time of Close
	if err != nil {
		return nil, pathError(path, err)
	}
	l, err := listenAt(abs)
	if err != nil {
		return nil, pathError(path, advise(path, err))
	}
	return l, nil
}

// listenAt is Listen for an absolute path that can be one.
func listenAt(path string) (net.Listener, error) {
	unlock, err := lockDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := listenBeside(path)
	if err != nil {
		return nil, err
	}
	if mode := l.file.Mode().Perm(); mode != 0o600 {
		err := fmt.Errorf("its mode is %#o instead of 0600; choose a directory on a file system that keeps modes", mode)
		return nil, errors.Join(err, l.Close())
	}
	if err := l.moveTo(path); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// moveTo gives the socket its name. Unlike a rename, a hard link does not replace a file that another
// program has put there meanwhile; the rename is for file systems without hard links to sockets.
func (l *listener) moveTo(path string) error {
	err := os.Link(l.path, path)
	switch {
	case err == nil:
		err = os.Remove(l.path)
	case errors.Is(err, fs.ErrExist):
		who, _, _ := listening(path)
		return inUse(who)
	default:
		err = os.Rename(l.path, path)
	}
	if err == nil {
		l.path = path
	}
	return err
}

// listenBeside listens at a temporary path in the same directory. It is no longer than path, which may be
// as long as is allowed.
func listenBeside(path string) (*listener, error) {
	var beside string
	var all error
	for _, last := range "~#+" {
		if beside = path[:len(path)-1] + string(last); beside == path {
			continue
		}
		// A process that died between here and moveTo may have left it.
		err := removeStale(beside)
		if err == nil {
			all = nil
			break
		}
		if err = fmt.Errorf("%s: %w", beside, err); all != nil {
			err = fmt.Errorf("%w; %w", all, err)
		}
		all = err
	}
	if all != nil {
		return nil, fmt.Errorf("it needs one more name for a moment, and none is free: %w", all)
	}
	ln, err := listenPrivate(beside)
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false) // it would remove any file that has the name by then
	fi, err := os.Lstat(beside)
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return &listener{UnixListener: ln, path: beside, file: fi}, nil
}

// listener removes its own socket file, and no other, on Close.
type listener struct {
	*net.UnixListener
	path string
	file os.FileInfo
	once sync.Once
	err  error
}

// Addr returns the absolute path that was given to Listen.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close may be called more than once and from several goroutines.
func (l *listener) Close() error {
	l.once.Do(func() {
		// The file is removed first: while the socket is open no other file can get its inode number,
		// so that SameFile can be trusted.
		var err error
		if fi, e := os.Lstat(l.path); e == nil && os.SameFile(fi, l.file) {
			err = os.Remove(l.path)
		}
		l.err = errors.Join(err, l.UnixListener.Close())
	})
	return l.err
}

// lockDir makes the calls of Listen in one directory exclude each other: finding a stale socket, removing
// it and binding anew are separate steps, and a socket that is bound and does not listen yet looks stale.
// The lock is on the directory itself, so that no lock file stays behind. Where the directory cannot be
// opened or its file system has no such locks (NFS), Listen continues without one.
//
// It has to poll. A blocking flock has no deadline, and in a shared directory any user can hold the lock
// for ever; nor does the kernel give notice of an unlock.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return func() {}, nil
	}
	deadline := time.Now().Add(lockWait)
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return func() { _ = f.Close() }, nil
		}
		if time.Now().After(deadline) {
			err := fmt.Errorf("%w, %s, for over %v", ErrLocked, dir, lockWait)
			if who := lockHolder(f); who != "" {
				err = fmt.Errorf("%w: %s", err, who)
			}
			return nil, errors.Join(fmt.Errorf("%w; choose another directory", err), f.Close())
		}
		time.Sleep(lockPause)
	}
}

// removeStale removes a socket of this user on which no process listens.
func removeStale(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := checkFile(path, fi); err != nil {
		return err
	}
	who, live, err := listening(path)
	if err != nil {
		return err
	}
	if live {
		return inUse(who)
	}
	return os.Remove(path)
}

// listening reports whether a process listens on the socket at path, and who that is, "" if unknown.
func listening(path string) (who string, live bool, err error) {
	conn, err := net.DialTimeout("unix", path, probeWait)
	switch {
	case err == nil:
		return process(conn), true, conn.Close()
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		// macOS also refuses when the backlog is full: there a flooded listener looks stale.
		return "", false, nil
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, os.ErrDeadlineExceeded):
		return "", true, nil // a listener whose backlog is full
	default:
		return "", false, err
	}
}

// Dial makes one attempt to connect to the Unix socket at path, bounded by ctx. Both the socket and the
// process that listens on it must be this user's ([ErrOwner], [ErrPeer]). A symbolic link is followed. The
// error is [fs.ErrNotExist] for a socket that is not there yet, and [syscall.ECONNREFUSED] for one on which
// no process listens.
func Dial(ctx context.Context, path string) (net.Conn, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if err := checkFile(path, fi); err != nil {
		return nil, pathError(path, advise(path, err))
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := CheckPeer(conn); err != nil {
		return nil, pathError(path, errors.Join(advise(path, err), conn.Close()))
	}
	return conn, nil
}

// CheckPeer returns an error that wraps [ErrPeer] if the process at the other end of a Unix socket runs as
// another user than this one, by the credentials that the kernel recorded when the other end connected or
// listened (SO_PEERCRED on Linux, LOCAL_PEERCRED on macOS). For a connection that is not a Unix socket the
// error wraps [ErrUnsupported].
func CheckPeer(c net.Conn) error {
	var uid int
	if err := peer(c, func(fd int) (err error) { uid, err = peerUID(fd); return err }); err != nil {
		return err
	}
	if uid != os.Geteuid() {
		return fmt.Errorf("%w: %s, and this process is uid %d", ErrPeer, process(c), os.Geteuid())
	}
	return nil
}

// PeerPID returns the id of the process that connected, or that listened, at the other end of a Unix
// socket (SO_PEERCRED on Linux, LOCAL_PEERPID on macOS). That process may have ended since, or have
// passed the socket on. ok is false for other connections, and for a process that has no id here because
// it is in another PID namespace.
func PeerPID(c net.Conn) (pid int, ok bool) {
	err := peer(c, func(fd int) (err error) { pid, err = peerPID(fd); return err })
	return pid, err == nil && pid > 0
}

// Queued returns how many bytes wait in a Unix socket to be read, 0 if that is not known.
func Queued(c net.Conn) (bytes int) {
	_ = peer(c, func(fd int) (err error) { bytes, err = unix.IoctlGetInt(fd, queuedRequest); return err })
	return bytes
}

// Hung reports whether what is written to a Unix socket reaches nobody: its other end is closed and not just half of it, or we
// have called CloseWrite. It is false if that is not known.
func Hung(c net.Conn) bool {
	hung := false
	_ = peer(c, func(fd int) error { // writing nothing never blocks
		_, err := unix.Write(fd, nil)
		hung = errors.Is(err, unix.EPIPE)
		return nil
	})
	return hung
}

// Ended reports whether the other end of a Unix socket writes no more, and all that it has written was read. It is false if that is
// not known.
func Ended(c net.Conn) bool {
	ended := false
	_ = peer(c, func(fd int) error {
		n, _, err := unix.Recvfrom(fd, make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		ended = n == 0 && err == nil
		return nil
	})
	return ended
}

// peer calls get with the descriptor of a Unix socket, to get credentials of its other end.
func peer(c net.Conn, get func(fd int) error) error {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("%w: a %T has no peer credentials", ErrUnsupported, c)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return fmt.Errorf("peer credentials: %w", err)
	}
	var getErr error
	if err := raw.Control(func(fd uintptr) { getErr = get(int(fd)) }); err != nil {
		return fmt.Errorf("peer credentials: %w", err)
	}
	if getErr != nil {
		return fmt.Errorf("peer credentials: %w", os.NewSyscallError("getsockopt", getErr))
	}
	return nil
}

func owner(fi os.FileInfo) int {
	return int(fi.Sys().(*syscall.Stat_t).Uid)
}
