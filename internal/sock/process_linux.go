package sock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// WaitPeer blocks until the process that connected, or that listened, at the other end of a Unix socket has ended, and
// returns nil; or until ctx ends, and returns its cause. Any other error means that the system does not tell, or that the
// process had ended before.
func WaitPeer(ctx context.Context, c net.Conn) error {
	var pidfd int
	if err := peer(c, func(fd int) (err error) { pidfd, err = peerPidfd(fd); return err }); err != nil {
		return err
	}
	return wait(ctx, pidfd)
}

// WaitProcess is WaitPeer for a process id.
func WaitProcess(ctx context.Context, pid int) error {
	pidfd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, os.NewSyscallError("pidfd_open", err))
	}
	return wait(ctx, pidfd)
}

// peerPidfd returns a descriptor of the process at the other end. Before Linux 6.5 that goes by its id, which another
// process may have by then.
func peerPidfd(fd int) (int, error) {
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if !errors.Is(err, unix.ENOPROTOOPT) {
		return pidfd, err
	}
	pid, err := peerPID(fd)
	if err == nil && pid <= 0 { // in another PID namespace
		err = unix.ESRCH
	}
	if err != nil {
		return 0, err
	}
	return unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
}

// wait blocks until the process of a pidfd has ended, which makes it readable, and closes it.
func wait(ctx context.Context, pidfd int) error {
	if err := unix.SetNonblock(pidfd, true); err != nil { // or os would not poll it
		return errors.Join(os.NewSyscallError("fcntl", err), unix.Close(pidfd))
	}
	f := os.NewFile(uintptr(pidfd), "pidfd")
	defer f.Close()
	if ended(uintptr(pidfd)) {
		return errors.New("the process had ended before")
	}
	stop := context.AfterFunc(ctx, func() { _ = f.Close() }) // which ends Read
	defer stop()
	raw, err := f.SyscallConn()
	if err == nil {
		err = raw.Read(ended)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func ended(pidfd uintptr) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0)
	return n > 0 && err == nil
}

// Unread reports whether the other end of a Unix socket has not read everything that was written to it. known is false if
// the system does not tell.
func Unread(c net.Conn) (unread, known bool) {
	err := peer(c, func(fd int) error {
		n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		unread = n > 0
		return err
	})
	return unread, err == nil
}

// queuedRequest is the ioctl for the bytes that wait in a socket.
const queuedRequest = unix.SIOCINQ
