//go:build linux && (amd64 || arm64)

package nowait

import (
	"net/netip"
	"os"
	"syscall"
	"unsafe"
)

// Read is read(2).
func Read(fd uintptr, b []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return result("read", n, errno)
}

// Write is write(2).
func Write(fd uintptr, b []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return result("write", n, errno)
}

// RecvFrom is recvfrom(2) on a socket for IPv4.
func RecvFrom(fd uintptr, b []byte) (int, netip.AddrPort, error) {
	var from syscall.RawSockaddrInet4
	size := uint32(syscall.SizeofSockaddrInet4)
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0,
		uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)))
	got, err := result("recvfrom", n, errno)
	return got, netip.AddrPortFrom(netip.AddrFrom4(from.Addr), swap(from.Port)), err
}

// SendTo is sendto(2) on a socket for IPv4.
func SendTo(fd uintptr, b []byte, to netip.AddrPort) (int, error) {
	addr := syscall.RawSockaddrInet4{Family: syscall.AF_INET, Port: swap(to.Port()), Addr: to.Addr().As4()}
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0,
		uintptr(unsafe.Pointer(&addr)), syscall.SizeofSockaddrInet4)
	return result("sendto", n, errno)
}

func result(call string, n uintptr, errno syscall.Errno) (int, error) {
	switch errno {
	case 0:
		return int(n), nil
	case syscall.EAGAIN:
		return 0, ErrWait
	}
	return 0, os.NewSyscallError(call, errno)
}

// swap changes between the byte orders of the network and of both kinds of machine.
func swap(port uint16) uint16 { return port<<8 | port>>8 }
