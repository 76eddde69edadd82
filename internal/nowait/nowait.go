// Package nowait makes system calls on sockets that never wait, for use within syscall.RawConn.
//
// Before any other system call the Go runtime prepares for a long one. If the process was asleep, that wakes
// a thread which watches over it (sysmon), and which then looks around every 20 µs until the process sleeps
// again: for each packet that comes to a sidecar of its own two or three changes of thread, on the cores that
// the next process in the line needs. On Linux the calls of this package are made without these preparations.
// Other systems have no such calls, and get the ordinary ones.
package nowait

import "errors"

// ErrWait means that the socket has nothing to read, or no room. Callers wait as RawConn does, by returning
// false.
var ErrWait = errors.New("nowait: would have to wait")
