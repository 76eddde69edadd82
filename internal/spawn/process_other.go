//go:build !unix

package spawn

import (
	"os"
	"syscall"
)

func ignoreBrokenPipes() {}

func ownGroup() *syscall.SysProcAttr { return nil }

func signaled(*os.ProcessState, syscall.Signal) bool { return false }
