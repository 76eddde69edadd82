//go:build unix

package sock

import (
	"net"
	"syscall"
)

// TryWriter returns a function that writes as much of its argument to c as c takes without waiting, and
// returns how much that was: 0 if c is full, or broken, which the next ordinary write reports. It must not
// be called concurrently, nor while a Write is under way. For a connection without a file descriptor
// TryWriter returns nil.
//
// A net.Conn has no such call: its Write waits, and a deadline in the past fails before it tries.
func TryWriter(c net.Conn) func(b []byte) int {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	// One closure for all calls, rather than one for each.
	var b []byte
	var n int
	once := func(fd uintptr) bool {
		n, _ = syscall.Write(int(fd), b)
		return true // do not wait
	}
	return func(text []byte) int {
		b, n = text, 0
		_ = raw.Write(once)
		b = nil
		return max(0, n)
	}
}
