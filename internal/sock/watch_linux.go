package sock

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// A Watch waits until a connection has something to read, without reading. It can be switched off: then what comes wakes only who reads the
// connection itself.
type Watch struct {
	set  *os.File        // an epoll set of the connection alone
	raw  syscall.RawConn // of set
	conn syscall.RawConn
	some func(set uintptr) bool
}

// NewWatch returns a Watch that is on. It takes a descriptor.
func NewWatch(c net.Conn) (*Watch, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil, ErrUnsupported
	}
	conn, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	err = syscall.SetNonblock(fd, true) // or the runtime would not wait for it
	w := &Watch{set: os.NewFile(uintptr(fd), "epoll"), conn: conn}
	if err == nil {
		w.raw, err = w.set.SyscallConn()
	}
	if err == nil {
		err = w.set.SetReadDeadline(time.Time{}) // fails if the runtime cannot wait for it
	}
	if err == nil {
		err = w.control(syscall.EPOLL_CTL_ADD, syscall.EPOLLIN)
	}
	if err != nil {
		_ = w.set.Close() // nothing was written to it
		return nil, err
	}
	w.some = func(set uintptr) bool {
		var event syscall.EpollEvent
		n, _, _ := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, set, uintptr(unsafe.Pointer(&event)), 1, 0, 0, 0)
		return n != 0 // or a failure, which reading will tell
	}
	return w, nil
}

// control sets what is watched for.
func (w *Watch) control(op int, events uint32) error {
	event := syscall.EpollEvent{Events: events}
	var errno syscall.Errno
	err := w.raw.Control(func(set uintptr) {
		err := w.conn.Control(func(fd uintptr) {
			_, _, errno = syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, set, uintptr(op), fd, uintptr(unsafe.Pointer(&event)), 0, 0)
		})
		if err != nil {
			errno = syscall.EBADF
		}
	})
	if err == nil && errno != 0 {
		err = os.NewSyscallError("epoll_ctl", errno)
	}
	return err
}

// Off has data that arrives no longer wake Wait; the end of the connection does.
func (w *Watch) Off() { _ = w.control(syscall.EPOLL_CTL_MOD, 0) } // fails if either was closed, which Wait tells

// On ends Off. What has come meanwhile counts.
func (w *Watch) On() { _ = w.control(syscall.EPOLL_CTL_MOD, syscall.EPOLLIN) }

// Wait blocks until there is something to read, or the connection has ended, or Wake is called. It fails once the Watch is closed. It must not be
// called concurrently.
func (w *Watch) Wait() error {
	err := w.raw.Read(w.some)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = w.set.SetReadDeadline(time.Time{})
	}
	return err
}

// Wake has Wait return, or the next one if there is none.
func (w *Watch) Wake() { _ = w.set.SetReadDeadline(time.Unix(1, 0)) } // fails if it is closed: then Wait has returned

// Close has Wait fail. It may be called at any time, repeatedly.
func (w *Watch) Close() { _ = w.set.Close() }
