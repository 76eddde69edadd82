// Command mesh is for the people who run agents: it makes and shows the keys by which agents know each other.
//
//	go run ./cmd/mesh --help
//
// It is a module of its own, so that programs that use the library do not get the modules that only a command line needs.
package main

import (
	"os"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}
