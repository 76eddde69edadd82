//go:build !unix

package main

import "os/exec"

func group(*exec.Cmd) {}

// terminate ends a program: there is no signal that asks it to.
func terminate(cmd *exec.Cmd) { kill(cmd) }

func kill(cmd *exec.Cmd) { _ = cmd.Process.Kill() }
