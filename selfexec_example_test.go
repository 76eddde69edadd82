//go:build linux || darwin

package mesh_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/chatixia-ai/mesh"
)

// With mode SelfExec the sidecar is a process of its own, without a second program
// to build and to find. The first statement of main makes the difference between
// the two. (The tests of this package have it in their TestMain.)
func ExampleSidecarMain() {
	if mesh.SidecarMain() {
		return
	}
	url, stop := newSignaling()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	m, err := mesh.New(ctx, mesh.Config{Mode: mesh.SelfExec, SignalingURL: url, APIKey: "alice", WaitSignaling: true})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	fmt.Println(m.ID(), "has a sidecar in another process:", m.SidecarPID() != 0)
	// Output: alice has a sidecar in another process: true
}
