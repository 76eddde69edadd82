//go:build !unix

package chromium

import "os/exec"

// Without process groups only the browser itself is killed; its children end when they notice.

func ownGroup(*exec.Cmd) {}

func killGroup(cmd *exec.Cmd) { _ = cmd.Process.Kill() }

func groupAlive(*exec.Cmd) bool { return false }
