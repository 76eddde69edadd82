package spawn

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// What the child calls.

// Signals returns a context that ends on SIGTERM and SIGINT, until stop is called. SIGPIPE is ignored from
// then on: when the parent dies its end of stderr goes first, and a log line must not end the child before
// it has put things in order.
func Signals(parent context.Context) (ctx context.Context, stop context.CancelFunc) {
	ignoreBrokenPipes()
	return signal.NotifyContext(parent, syscall.SIGTERM, syscall.SIGINT)
}

// StdinClosed returns a channel that is closed when the parent, which holds the other end of this
// process's stdin, has died. It starts a goroutine that may live as long as the process: a read of stdin
// cannot be ended.
func StdinClosed() <-chan struct{} {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	return closed
}
