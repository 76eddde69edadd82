// Command mesh is for the people who run agents: it makes and shows the keys by which agents know each other, and joins a
// mesh itself, to offer and reach services, send messages and copy files.
//
//	go run ./cmd/mesh --help
//
// It is a module of its own, so that programs that use the library do not get the modules that only a command line needs.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // writes fail instead, so that there is time to leave the mesh
	ctx, stop := untilSignal()
	status := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// A signalError is the signal that ends a command.
type signalError struct{ syscall.Signal }

func (e signalError) Error() string { return e.Signal.String() }

// untilSignal returns a context that ends with the first SIGINT or SIGTERM, whose cause is a signalError. The second one
// ends the process, if a command takes long to end.
func untilSignal() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	stop := func() { signal.Stop(signals) }
	go func() { // it lasts as long as the process
		s, _ := (<-signals).(syscall.Signal)
		stop()
		cancel(signalError{s})
	}()
	return ctx, stop
}
