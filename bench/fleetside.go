package main

import (
	"context"
	"fmt"
	"time"
)

// A fleetSide measures a fleet anew in each round, in a forked copy.
type fleetSide struct {
	job  job
	name string
}

// newFleetSide is a side that gives numbers that begin with "<kind>_<n>_".
func newFleetSide(o options, kind fleetKind, n int, idle time.Duration) side {
	f := &fleetSide{name: fmt.Sprintf("%s_%d_", kind, n), job: job{Fleet: &fleetJob{Kind: kind, Agents: n, Idle: idle}}}
	if o.cpuProfile != "" {
		f.job.CPUProfile = fmt.Sprintf("%s.%s%d", o.cpuProfile, kind, n)
	}
	var gives []string
	for name := range f.reading(fleetResult{}) {
		gives = append(gives, name)
	}
	return side{gives, f}
}

func (f *fleetSide) setup(context.Context) error { return nil }
func (f *fleetSide) close()                      {}

func (f *fleetSide) round(ctx context.Context) (reading, error) {
	var r fleetResult
	if err := f.job.run(ctx, &r); err != nil {
		return nil, err
	}
	return f.reading(r), nil
}

func (f *fleetSide) reading(r fleetResult) reading {
	numbers := reading{
		f.name + "build_ms":           r.BuildMS,
		f.name + "build_cpu_s":        r.BuildCPU,
		f.name + "memory_per_link_kb": r.MemoryPerLink,
		f.name + "goroutines_per_end": r.Goroutines,
		f.name + "broadcast_us":       r.BroadcastUS,
		f.name + "broadcast_cpu_us":   r.BroadcastCPU,
	}
	if f.job.Fleet.Idle > 0 {
		numbers[f.name+"idle_cpu_percent"] = r.IdleCPU
	}
	return numbers
}
