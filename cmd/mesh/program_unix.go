//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// group puts a program into a process group of its own, so that those that it starts end with it, and the terminal's
// signals reach it by way of this command only.
func group(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// terminate asks a program, and those that it has started, to end. It must not have been waited for.
func terminate(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }

// kill ends them.
func kill(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
