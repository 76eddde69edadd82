//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "faults: it counts descriptors and processes in /proc, so it runs on Linux only")
	os.Exit(2)
}
