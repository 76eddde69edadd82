package hostaddr

import (
	"os"
	"syscall"
)

// lost means that the socket had no room for news.
const lost = syscall.ENOBUFS

// listen returns a socket from which a read returns when something has changed (route(4)).
func listen() (*os.File, error) {
	syscall.ForkLock.RLock()
	fd, err := syscall.Socket(syscall.AF_ROUTE, syscall.SOCK_RAW, syscall.AF_UNSPEC)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		_ = syscall.Close(fd)
		return nil, os.NewSyscallError("setnonblock", err)
	}
	return os.NewFile(uintptr(fd), "route"), nil
}

// unusable knows nothing: an address that is tentative counts.
func unusable() map[interfaceAddr]bool { return nil }
