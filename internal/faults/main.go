//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/chatixia-ai/mesh"
)

// A row is one fault of the table.
type row struct {
	name  string
	about string // what is done, and what must hold
	run   func(*run)
}

// table lists the faults in the order in which they are run.
func table(local bool) []row {
	var all []row
	for _, rows := range [][]row{processRows, networkRows, natRows, signalingRows, loadRows, streamRows, endRows, hostRows} {
		all = append(all, rows...)
	}
	if local {
		network := append(slices.Concat(networkRows, natRows), row{name: "stream-cut"}, row{name: "peer-suspended"})
		all = slices.DeleteFunc(all, func(w row) bool {
			return slices.ContainsFunc(network, func(n row) bool { return n.name == w.name })
		})
	}
	return all
}

// options are the flags.
type options struct {
	quick, times, list bool
	local              bool
	seed               uint64
	churn              time.Duration
	memory             string
	rows               *regexp.Regexp
	apart              bool // this is the copy of the program that apart starts
}

func main() {
	// The forked sidecars of the mesh, and the agents in processes of their own, begin here.
	if mesh.SidecarMain() || agentMain() {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	err := faults(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet("faults", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprint(stderr, "Usage: ci/faults.sh [-race] [flags]\n\nDoes to agents what happens to them in the field, and prints one line per fault: what was counted, and how long\n"+
			"it took. Without -quick it takes three quarters of an hour. -race, which comes first, builds it with the race detector.\n\n")
		f.PrintDefaults()
	}
	f.BoolVar(&o.quick, "quick", false, "fewer repetitions, and shorter ones")
	f.BoolVar(&o.times, "times", false, "a row also fails when something took longer than it may")
	f.BoolVar(&o.list, "list", false, "only list the rows")
	f.BoolVar(&o.local, "local", false, "have links go over sockets of this host, as they do by default between processes of one user: without the rows about the network")
	f.Uint64Var(&o.seed, "seed", 1, "of which packets are lost, and at which moments most things happen")
	f.DurationVar(&o.churn, "churn", 0, "how long agents come and go in the row churn; 0: five minutes, or ten seconds with -quick")
	f.StringVar(&o.memory, "memory", "", "write the memory of the row churn to this `file`, which bench -memory draws")
	rows := f.String("run", "", "only the rows whose names match this regular expression")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q; for the rows of that name: -run %[1]s", f.Arg(0))
	case o.churn < 0:
		return o, fmt.Errorf("-churn %s: it must be positive", o.churn)
	}
	o.apart = os.Getenv(apartEnv) != ""
	o.rows, err = regexp.Compile(*rows)
	return o, err
}

func faults(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if err := os.Setenv("MESH_NO_LOCAL", strconv.FormatBool(!o.local)); err != nil {
		return err
	}
	if o.list {
		for _, w := range table(o.local) {
			if o.rows.MatchString(w.name) {
				fmt.Fprintf(stdout, "%-20s %s\n", w.name, w.about)
			}
		}
		return nil
	}
	if o.apart {
		if err := settle(); err != nil {
			(&run{skipped: err.Error()}).tell(stdout)
			return nil
		}
	}
	// Everything that the mesh puts into a temporary directory is to be gone after each row.
	tmp, err := os.MkdirTemp("", "f")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := errors.Join(os.Setenv("TMPDIR", tmp), os.Unsetenv("XDG_RUNTIME_DIR")); err != nil {
		return err
	}
	if err := warmUp(ctx, o); err != nil {
		return fmt.Errorf("without any fault: %w", err)
	}
	words := make(map[string]int)
	ran := 0
	begin := time.Now()
	for _, w := range table(o.local) {
		if !o.rows.MatchString(w.name) {
			continue
		}
		ran++
		words[w.report(ctx, o, stdout)]++
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if o.apart {
		return nil
	}
	fmt.Fprintf(stdout, "%d rows, %d failed, %d skipped, %.0f s, seed %d\n", ran, words[wordFail], words[wordSkip], time.Since(begin).Seconds(), o.seed)
	switch {
	case ran == 0:
		return errors.New("no row has such a name; -list shows them")
	case words[wordFail] > 0:
		return fmt.Errorf("%d of %d rows failed", words[wordFail], ran)
	}
	return nil
}
