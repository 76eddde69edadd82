package hostaddr

import (
	"encoding/hex"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// lost means that the socket had no room for news.
const lost = syscall.ENOBUFS

// groups are what the socket tells of: addresses, routes, and interfaces that go up or down.
const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE

// listen returns a socket from which a read returns when something has changed (rtnetlink(7)).
func listen() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

// unusable returns the addresses of IPv6 that are tentative, or turned out to be another host's (RFC 4862, 5.4).
func unusable() map[interfaceAddr]bool {
	text, err := os.ReadFile("/proc/thread-self/net/if_inet6")
	if err != nil {
		return nil // no IPv6
	}
	found := make(map[interfaceAddr]bool)
	for line := range strings.Lines(string(text)) {
		// The address, then in hexadecimal the interface's index, the prefix length, the scope and flags; the name.
		f := strings.Fields(line)
		if len(f) < 6 {
			continue
		}
		index, err := strconv.ParseUint(f[1], 16, 31)
		flags, err2 := strconv.ParseUint(f[4], 16, 32)
		if err != nil || err2 != nil || flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 {
			continue
		}
		ip, err := hex.DecodeString(f[0])
		if err != nil {
			continue
		}
		found[interfaceAddr{int(index), net.IP(ip).String()}] = true
	}
	return found
}
