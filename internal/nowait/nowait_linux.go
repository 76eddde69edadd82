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

// RecvFrom is recvfrom(2) on a socket for IPv4 or IPv6. iface is the index of the interface for an address that
// is valid only there (RFC 4007), else 0.
func RecvFrom(fd uintptr, b []byte) (n int, from netip.AddrPort, iface uint32, err error) {
	var addr syscall.RawSockaddrInet6 // larger than that of IPv4
	size := uint32(syscall.SizeofSockaddrInet6)
	r, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0,
		uintptr(unsafe.Pointer(&addr)), uintptr(unsafe.Pointer(&size)))
	n, err = result("recvfrom", r, errno)
	if addr.Family == syscall.AF_INET {
		v4 := (*syscall.RawSockaddrInet4)(unsafe.Pointer(&addr))
		return n, netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), swap(v4.Port)), 0, err
	}
	return n, netip.AddrPortFrom(netip.AddrFrom16(addr.Addr), swap(addr.Port)), addr.Scope_id, err
}

// SendTo is sendto(2) to an address of the socket's family, without a zone.
func SendTo(fd uintptr, b []byte, to netip.AddrPort) (int, error) {
	var addr syscall.RawSockaddrInet6
	size := uintptr(syscall.SizeofSockaddrInet6)
	if to.Addr().Is4() {
		v4 := (*syscall.RawSockaddrInet4)(unsafe.Pointer(&addr))
		*v4 = syscall.RawSockaddrInet4{Family: syscall.AF_INET, Port: swap(to.Port()), Addr: to.Addr().As4()}
		size = syscall.SizeofSockaddrInet4
	} else {
		addr = syscall.RawSockaddrInet6{Family: syscall.AF_INET6, Port: swap(to.Port()), Addr: to.Addr().As16()}
	}
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0,
		uintptr(unsafe.Pointer(&addr)), size)
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

// swap converts between the byte order of the network and that of the machine, which is little-endian here.
func swap(port uint16) uint16 { return port<<8 | port>>8 }
