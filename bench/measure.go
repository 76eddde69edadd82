package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"
)

// repeats is how often a stalled round is repeated before it counts as it is: a
// side that always stalls must not look like one that never does.
const repeats = 5

// results are the readings of all rounds.
type results struct {
	values   map[string][]float64 // by number
	repeated map[string]int       // stalled rounds that were repeated, by the side's first number
	kept     map[string]int       // stalled rounds that count
	seconds  float64
}

// numbers returns the median of each number.
func (r *results) numbers() map[string]float64 {
	m := make(map[string]float64, len(r.values))
	for name, v := range r.values {
		m[name] = median(v)
	}
	return m
}

// measure works through the plan.
func measure(ctx context.Context, o options, progress io.Writer) (*results, error) {
	r := &results{values: map[string][]float64{}, repeated: map[string]int{}, kept: map[string]int{}}
	groups := selected(o)
	if len(groups) == 0 {
		return nil, fmt.Errorf("-run %q: nothing has such a name", o.only)
	}
	start := time.Now()
	for i, g := range groups {
		began := time.Now()
		fmt.Fprintf(progress, "%2d/%d %-16s", i+1, len(groups), g.name)
		err := r.group(ctx, o, g)
		fmt.Fprintf(progress, " %5.1f s\n", time.Since(began).Seconds())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", g.name, err)
		}
	}
	r.seconds = time.Since(start).Seconds()
	return r, nil
}

// group sets all sides up, and lets their rounds take turns, forwards and
// backwards, so that none is always measured behind the same other one.
func (r *results) group(ctx context.Context, o options, g group) error {
	for _, s := range g.sides {
		defer s.close()
		if err := s.setup(ctx); err != nil {
			return s.failed(err)
		}
	}
	rounds := g.rounds
	if o.rounds > 0 {
		rounds = o.rounds
	}
	order := slices.Clone(g.sides)
	for range rounds {
		for _, s := range order {
			if err := r.round(ctx, s); err != nil {
				return s.failed(err)
			}
		}
		slices.Reverse(order)
	}
	return nil
}

func (r *results) round(ctx context.Context, s side) error {
	for try := 0; ; try++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		runtime.GC()
		got, err := s.round(ctx)
		stalled := errors.Is(err, errStalled)
		switch {
		case err != nil && !stalled:
			return err
		case stalled && try < repeats:
			r.repeated[s.name()]++
			continue
		case stalled:
			r.kept[s.name()]++
		}
		for name, v := range got {
			r.values[name] = append(r.values[name], v)
		}
		return nil
	}
}

// name is a short name for messages.
func (s side) name() string {
	name := slices.Min(s.gives)
	for _, unit := range []string{"_us", "_per_s", "_mbps", "_ms", "_ns", "_allocs", "_p99"} {
		name = strings.TrimSuffix(name, unit)
	}
	return name
}

func (s side) failed(err error) error { return fmt.Errorf("%s: %w", s.name(), err) }

// stalls lists how many rounds of each side stalled, for the table.
func stalls(counts map[string]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, counts[name]))
	}
	if parts == nil {
		return "none"
	}
	return strings.Join(parts, ", ")
}
