//go:build linux || darwin

package mesh

import (
	"errors"
	"fmt"
	"syscall"
)

// leftChild returns a description of a child process that was not waited for, "" if
// there is none.
func leftChild() string {
	pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
	switch {
	case errors.Is(err, syscall.ECHILD):
		return ""
	case err != nil:
		return err.Error()
	case pid == 0:
		return "a child process that still runs"
	}
	return fmt.Sprintf("the child process %d, which ended", pid)
}
