package main

import (
	"flag"
	"fmt"
	"io"
	"regexp"
	"time"
)

// options are what the command line says.
type options struct {
	json       bool
	quick      bool
	plotDir    string
	memory     string
	only       *regexp.Regexp // nil: everything
	rounds     int            // 0: each group's own
	cpuProfile string
	wan        bool
}

const usage = `Usage: go run . [flags]

Measures the mesh and its comparisons side by side and prints a table.
Run it on a machine that does nothing else. Without -quick it takes minutes.

`

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	var only string
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.Usage = func() {
		fmt.Fprint(stderr, usage)
		set.PrintDefaults()
	}
	set.BoolVar(&o.json, "json", false, "print one JSON object instead of the table")
	set.BoolVar(&o.quick, "quick", false, "fewer and shorter rounds, 12 agents instead of 32; under 50 s on two cores")
	set.BoolVar(&o.wan, "wan", false, "measure over a path with delay, a line of limited rate and loss, instead of loopback; takes half an hour")
	set.StringVar(&o.memory, "memory", "", "measure nothing; with -plot, draw memory.svg of this `file`, which the row churn of ci/faults.sh has written with its -memory")
	set.StringVar(&o.plotDir, "plot", "", "write SVG charts into this `directory`")
	set.StringVar(&only, "run", "", "measure only the keys and numbers whose names match this `regexp`, and what keys need")
	set.IntVar(&o.rounds, "rounds", 0, "`number` of rounds of everything (default: chosen for each group)")
	set.StringVar(&o.cpuProfile, "cpuprofile", "", "write a CPU profile to this `file`, and those of forked copies beside it")
	if err := set.Parse(args); err != nil {
		return o, err
	}
	if set.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q; see -h", set.Arg(0))
	}
	if o.rounds < 0 {
		return o, fmt.Errorf("-rounds %d: must not be negative", o.rounds)
	}
	if only != "" {
		var err error
		if o.only, err = regexp.Compile(only); err != nil {
			return o, fmt.Errorf("-run: %w", err)
		}
	}
	return o, nil
}

// pick returns the value for a full run or for a quick one.
func pick[T any](o options, full, quick T) T {
	if o.quick {
		return quick
	}
	return full
}

// span is how long one round of a rate or of a latency lasts.
func (o options) span() time.Duration {
	return pick(o, 700*time.Millisecond, 130*time.Millisecond)
}

// agents is the size of the large mesh.
func (o options) agents() int { return pick(o, 32, 12) }
