package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"time"
)

// A fleet is a number of agents in one process.
type fleet interface {
	// open starts n agents and, if linked, returns when all are linked to all.
	open(ctx context.Context, n int, linked bool) error
	// broadcast gives a small message from one agent to all others and returns
	// when they have it.
	broadcast(ctx context.Context) error
	// readers is how many goroutines read from the links on behalf of the
	// benchmark: the baseline has none of its own, and is of no use without.
	readers() int
	close()
}

// A fleetKind is what the links of a fleet are. It begins the names of its numbers.
type fleetKind string

const (
	pionLinks  fleetKind = "pion"  // bare
	meshLinks  fleetKind = "mesh"  // over WebRTC
	localLinks fleetKind = "local" // the mesh's, over the local path
)

// A fleetJob is to measure a fleet in a process of its own.
type fleetJob struct {
	Kind   fleetKind
	Agents int
	Idle   time.Duration // how long to look at the fleet doing nothing; 0: not at all
}

// A fleetResult is the result of a fleetJob. What as many agents without links
// need is subtracted from memory and goroutines. Memory is that of both ends of a
// link together, goroutines are those of one end, without readers of the benchmark.
type fleetResult struct {
	Links         int     `json:"links"`
	BuildMS       float64 `json:"build_ms"`
	BuildCPU      float64 `json:"build_cpu_s"`
	MemoryPerLink float64 `json:"memory_per_link_kb"`
	Goroutines    float64 `json:"goroutines_per_end"`
	IdleCPU       float64 `json:"idle_cpu_percent"` // of one core
	BroadcastUS   float64 `json:"broadcast_us"`
	BroadcastCPU  float64 `json:"broadcast_cpu_us"`
}

const fleetTimeout = 2 * time.Minute

func (j *fleetJob) open() fleet {
	switch j.Kind {
	case meshLinks:
		return &meshFleet{network: webRTC}
	case localLinks:
		return &meshFleet{}
	case pionLinks:
	}
	return &pionFleet{}
}

// work writes the fleetResult as JSON.
func (j *fleetJob) work(stdout io.Writer) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), fleetTimeout, fmt.Errorf("%d agents were not ready within %v", j.Agents, fleetTimeout))
	defer cancel()
	alone, err := j.weighAlone(ctx)
	if err != nil {
		return err
	}
	r := fleetResult{Links: j.Agents * (j.Agents - 1) / 2}
	f := j.open()
	defer f.close()
	if err := r.build(ctx, f, j.Agents); err != nil {
		return err
	}
	w := weigh(ctx)
	r.MemoryPerLink = (w.bytes - alone.bytes) / 1e3 / float64(r.Links)
	r.Goroutines = (w.goroutines - alone.goroutines - float64(f.readers())) / float64(2*r.Links)
	if err := r.idle(ctx, j.Idle); err != nil {
		return err
	}
	if err := r.broadcast(ctx, f); err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(r)
}

// weighAlone weighs as many agents without links.
func (j *fleetJob) weighAlone(ctx context.Context) (weight, error) {
	f := j.open()
	defer f.close()
	if err := f.open(ctx, j.Agents, false); err != nil {
		return weight{}, err
	}
	return weigh(ctx), nil
}

func (r *fleetResult) build(ctx context.Context, f fleet, n int) error {
	runtime.GC()
	start := time.Now()
	before, err := cpuTime()
	if err != nil {
		return err
	}
	if err := f.open(ctx, n, true); err != nil {
		return err
	}
	after, err := cpuTime()
	r.BuildCPU = (after - before).Seconds()
	r.BuildMS = float64(time.Since(start).Microseconds()) / 1e3
	return err
}

func (r *fleetResult) idle(ctx context.Context, span time.Duration) error {
	if span == 0 {
		return nil
	}
	before, err := cpuTime()
	if err != nil {
		return err
	}
	start := time.Now()
	if err := sleep(ctx, span); err != nil {
		return err
	}
	after, err := cpuTime()
	r.IdleCPU = 100 * (after - before).Seconds() / time.Since(start).Seconds()
	return err
}

func (r *fleetResult) broadcast(ctx context.Context, f fleet) error {
	const warmUp, rounds = 20, 200
	for range warmUp {
		if err := f.broadcast(ctx); err != nil {
			return err
		}
	}
	before, err := cpuTime()
	if err != nil {
		return err
	}
	start := time.Now()
	for range rounds {
		if err := f.broadcast(ctx); err != nil {
			return err
		}
	}
	elapsed := time.Since(start)
	after, err := cpuTime()
	r.BroadcastUS = float64(elapsed.Nanoseconds()) / 1e3 / rounds
	r.BroadcastCPU = float64((after - before).Nanoseconds()) / 1e3 / rounds
	return err
}

// A weight is how much memory and how many goroutines the process has.
type weight struct {
	bytes, goroutines float64
}

// weigh returns the weight of the process, once the goroutines are gone that only
// serve the making of connections.
func weigh(ctx context.Context) weight {
	const steady, most = 5, 100 // of 50 ms each
	for last, same, i := 0, 0, 0; same < steady && i < most; i++ {
		n := runtime.NumGoroutine()
		if same++; n != last {
			last, same = n, 0
		}
		if sleep(ctx, 50*time.Millisecond) != nil {
			break
		}
	}
	// Twice, since a pool lives through one collection.
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return weight{float64(m.HeapAlloc + m.StackInuse), float64(runtime.NumGoroutine())}
}

// sleep blocks for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
