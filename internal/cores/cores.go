// Package cores bounds the share of the machine that a sidecar process takes.
package cores

import (
	"os"
	"runtime"
)

// Share lets the Go scheduler use half of the cores, at least one, unless GOMAXPROCS in the environment
// says otherwise. It is for programs that are nothing but a sidecar.
//
// A packet passes half a dozen goroutines on its way through WebRTC, one after the other. With a core to
// spare the scheduler wakes another thread at each step, which finds the work already taken: on two cores
// a third of all context switches, taken from the agent that waits for the packet.
func Share() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/2))
	}
}
