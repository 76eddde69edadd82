// Package nowait makes system calls on sockets that never block, for use within syscall.RawConn.
//
// Before an ordinary system call the Go runtime prepares for a long one. If the process was asleep, that wakes
// the thread that watches the process (sysmon), which then runs every 20 µs until the process sleeps again:
// for each packet that a sidecar process receives, that is two or three context switches, on the cores that
// the next process in the chain needs. On Linux this package makes its calls without these preparations.
// Other systems have no such calls, and get the ordinary ones.
package nowait

import "errors"

// ErrWait means that the socket has nothing to read, or no room. A function for RawConn.Read or
// RawConn.Write then returns false, so that RawConn blocks.
var ErrWait = errors.New("the system call would block")
