//go:build unix

package signaling

import (
	"math"
	"syscall"
)

// descriptors returns how many files this process may have open. (Go raises the limit to the highest that is allowed.)
func descriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt32
	}
	return int(min(uint64(limit.Cur), math.MaxInt32))
}
