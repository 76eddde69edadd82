//go:build !unix

package mesh

import (
	"os"
	"syscall"
)

func ownGroup() *syscall.SysProcAttr { return nil }

func signaled(*os.ProcessState, syscall.Signal) bool { return false }
