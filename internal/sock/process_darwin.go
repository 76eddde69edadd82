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
	pid, ok := PeerPID(c)
	if !ok {
		return fmt.Errorf("%w: the process at the other end of a %T", ErrUnsupported, c)
	}
	return WaitProcess(ctx, pid)
}

// WaitProcess is WaitPeer for a process id.
func WaitProcess(ctx context.Context, pid int) error {
	kq, err := unix.Kqueue()
	if err != nil {
		return os.NewSyscallError("kqueue", err)
	}
	unix.CloseOnExec(kq)
	defer unix.Close(kq)
	var exit, cancel unix.Kevent_t
	unix.SetKevent(&exit, pid, unix.EVFILT_PROC, unix.EV_ADD|unix.EV_ONESHOT)
	exit.Fflags = unix.NOTE_EXIT
	unix.SetKevent(&cancel, 0, unix.EVFILT_USER, unix.EV_ADD|unix.EV_CLEAR)
	if _, err := unix.Kevent(kq, []unix.Kevent_t{exit, cancel}, nil, nil); err != nil {
		return fmt.Errorf("process %d: %w", pid, os.NewSyscallError("kevent", err))
	}
	cancelled := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cancelled)
		trigger := cancel
		trigger.Flags, trigger.Fflags = 0, unix.NOTE_TRIGGER
		_, _ = unix.Kevent(kq, []unix.Kevent_t{trigger}, nil, nil) // cannot fail: the event is there
	})
	defer func() {
		if !stop() {
			<-cancelled // it uses kq
		}
	}()
	events := make([]unix.Kevent_t, 1)
	for {
		n, err := unix.Kevent(kq, nil, events, nil)
		switch {
		case errors.Is(err, unix.EINTR) || err == nil && n == 0:
		case err != nil:
			return os.NewSyscallError("kevent", err)
		case events[0].Filter == unix.EVFILT_PROC:
			return nil
		default:
			return context.Cause(ctx)
		}
	}
}

// Unread returns false: macOS does not tell what the other end of a Unix socket has not read.
func Unread(net.Conn) (unread, known bool) { return false, false }

// queuedRequest is the ioctl for the bytes that wait in a socket, FIONREAD, which package unix does not name.
const queuedRequest = 0x4004667f
