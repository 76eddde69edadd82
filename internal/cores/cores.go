// Package cores bounds the share of the machine's cores that a sidecar process takes.
package cores

import (
	"os"
	"runtime"
)

// Share limits the Go scheduler to half of the cores, at least one, unless GOMAXPROCS is set in the
// environment. It is for programs that are nothing but a sidecar.
//
// A packet passes through half a dozen goroutines of WebRTC, one after the other. With a core to spare the
// scheduler wakes another thread at each step, which finds the work already taken. On two cores that is a
// third of all context switches, at the expense of the agent for which the packet is.
func Share() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/2))
	}
}
