//go:build !js

// There are no Unix sockets in a browser.

// Command chatixia-sidecar is the WebRTC side of one agent: mesh.ServeSidecar with settings from flags,
// environment variables and a .env file. A mesh in mode Binary starts it. For mode Attach, and for agents in
// other languages, a user or a supervisor starts it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/cores"
	"github.com/chatixia-ai/mesh/internal/version"
)

func main() {
	if mesh.SidecarMain() {
		return
	}
	cores.Share()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)   // a second signal ends the process at once
	signal.Ignore(syscall.SIGPIPE) // the agent is served even when stderr is closed at the other end
	err := run(ctx, os.Args[1:], os.Stderr)
	stop()
	if errors.Is(err, errVersion) {
		fmt.Println(version.String("chatixia-sidecar"))
		return
	}
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, "chatixia-sidecar:", err)
	if errors.Is(err, errUsage) {
		os.Exit(2)
	}
	os.Exit(1)
}
