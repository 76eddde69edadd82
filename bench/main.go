// Command bench measures the mesh side by side with what it is built on and
// with its alternatives: bare pion, libp2p, NATS, plain sockets.
//
// See README.md for what each number means.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/chatixia-ai/mesh"
)

func main() {
	// The forked sidecars of the mesh, and our own forked copies, begin here.
	if mesh.SidecarMain() || childMain() {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	opts, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	if opts.plotDir != "" {
		if err := os.MkdirAll(opts.plotDir, 0o755); err != nil {
			return fmt.Errorf("-plot: %w", err)
		}
	}
	if opts.memory != "" {
		return plotMemory(opts.plotDir, opts.memory)
	}
	stop, err := profile(opts.cpuProfile)
	if err != nil {
		return err
	}
	defer stop()
	r, err := measure(ctx, opts, stderr)
	if err != nil {
		return err
	}
	rep := newReport(opts, r)
	if err := show(rep, opts.json, stdout); err != nil {
		return err
	}
	if opts.plotDir != "" {
		if err := plotAll(opts.plotDir, rep); err != nil {
			return fmt.Errorf("plot: %w", err)
		}
	}
	return nil
}

func show(rep *report, asJSON bool, w io.Writer) error {
	if !asJSON {
		return rep.table(w)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(rep)
}
