//go:build unix && !(linux && (amd64 || arm64))

package nowait

import (
	"errors"
	"os"
	"syscall"
)

// Read is read(2).
func Read(fd uintptr, b []byte) (int, error) {
	n, err := syscall.Read(int(fd), b)
	return result("read", n, err)
}

// Write is write(2).
func Write(fd uintptr, b []byte) (int, error) {
	n, err := syscall.Write(int(fd), b)
	return result("write", n, err)
}

func result(call string, n int, err error) (int, error) {
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, syscall.EAGAIN):
		return 0, ErrWait
	}
	return 0, os.NewSyscallError(call, err)
}
