package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/testutil/netpath"
)

// A streamOpen measures how long it takes to open a stream, write a byte and have it back, one stream after the other.
type streamOpen struct {
	name string
	span time.Duration
	open streamOpener
	pair *streamPair
}

// newStreamOpen is a side that gives "<name>_ms", the median, and "<name>_p99_ms".
func newStreamOpen(o options, name string, open streamOpener) side {
	return side{[]string{name + "_ms", name + "_p99_ms"}, &streamOpen{name: name, span: o.span(), open: open}}
}

func (s *streamOpen) setup(ctx context.Context) (err error) {
	if s.pair, err = s.open(ctx, returnAll); err != nil {
		return err
	}
	_, err = s.round(ctx)
	if errors.Is(err, errStalled) {
		return nil
	}
	return err
}

func (s *streamOpen) round(ctx context.Context) (reading, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, roundTimeout, fmt.Errorf("streams were not open within %v", roundTimeout))
	defer cancel()
	var took []float64
	for start := time.Now(); time.Since(start) < s.span; {
		d, err := s.pair.openEchoed(ctx)
		if err != nil {
			return nil, err
		}
		took = append(took, float64(d.Nanoseconds())/1e6)
	}
	slices.Sort(took)
	r := reading{s.name + "_ms": percentile(took, 50), s.name + "_p99_ms": percentile(took, 99)}
	if took[len(took)-1] > float64(stall.Milliseconds()) {
		return r, errStalled
	}
	return r, nil
}

func (s *streamOpen) close() {
	if s.pair != nil {
		s.pair.close()
	}
}

// A wanStreamOpen is the same at a round trip of 50 ms. Agents and path are new in each round, whose first stream is apart: the
// channel for streams is made with it.
type wanStreamOpen struct {
	name  string
	seeds uint64
}

// newWANStreamOpen is a side that gives "<name>_ms", and "<name>_first_ms".
func newWANStreamOpen(name string) side {
	return side{[]string{name + "_ms", name + "_first_ms"}, &wanStreamOpen{name: name}}
}

func (s *wanStreamOpen) setup(context.Context) error { return nil }
func (s *wanStreamOpen) close()                      {}

func (s *wanStreamOpen) round(ctx context.Context) (reading, error) {
	const streams = 11
	ctx, cancel := context.WithTimeoutCause(ctx, roundTimeout, fmt.Errorf("streams were not open within %v", roundTimeout))
	defer cancel()
	s.seeds++
	path, err := netpath.New(netpath.Conditions{Delay: wanJoinDelay}, s.seeds)
	if err != nil {
		return nil, err
	}
	defer func() { _ = path.Close() }()
	pair, err := openMeshStreamsOver(path)(ctx, returnAll)
	if err != nil {
		return nil, err
	}
	defer pair.close()
	took := make([]float64, streams)
	for i := range took {
		d, err := pair.openEchoed(ctx)
		if err != nil {
			return nil, err
		}
		took[i] = float64(d.Nanoseconds()) / 1e6
	}
	return reading{s.name + "_ms": median(took[1:]), s.name + "_first_ms": took[0]}, nil
}

// A streamsJob is to open so many streams one after the other in a process of its own, each for the echo of one byte.
type streamsJob struct {
	Streams int
}

// A streamsResult is the result of a streamsJob. Memory and goroutines are what the process has of them more than before; it has
// both agents.
type streamsResult struct {
	US         float64 `json:"us"` // per stream, its end included
	Memory     float64 `json:"memory_kb"`
	Goroutines float64 `json:"goroutines"`
}

func (j *streamsJob) work(stdout io.Writer) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), fleetTimeout, fmt.Errorf("%d streams took over %v", j.Streams, fleetTimeout))
	defer cancel()
	pair, err := openMeshStreams(mesh.InProcess)(ctx, returnAll)
	if err != nil {
		return err
	}
	defer pair.close()
	const warmUp = 100
	if _, err := j.pass(ctx, pair, warmUp); err != nil {
		return err
	}
	before := weigh(ctx)
	elapsed, err := j.pass(ctx, pair, j.Streams)
	if err != nil {
		return err
	}
	after := weigh(ctx)
	return json.NewEncoder(stdout).Encode(streamsResult{
		US:         float64(elapsed.Nanoseconds()) / 1e3 / float64(j.Streams),
		Memory:     (after.bytes - before.bytes) / 1e3,
		Goroutines: after.goroutines - before.goroutines,
	})
}

func (j *streamsJob) pass(ctx context.Context, pair *streamPair, n int) (time.Duration, error) {
	start := time.Now()
	for range n {
		if _, err := pair.openEchoed(ctx); err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}

// A streamsSide has a streamsJob done in each round.
type streamsSide struct {
	name string
	job  job
}

// newStreamsSide is a side that gives "<name>_us", "<name>_memory_kb" and "<name>_goroutines".
func newStreamsSide(o options, name string, n int) side {
	s := &streamsSide{name, job{Streams: &streamsJob{n}}}
	if o.cpuProfile != "" {
		s.job.CPUProfile = o.cpuProfile + "." + name
	}
	return side{[]string{name + "_us", name + "_memory_kb", name + "_goroutines"}, s}
}

func (s *streamsSide) setup(context.Context) error { return nil }
func (s *streamsSide) close()                      {}

func (s *streamsSide) round(ctx context.Context) (reading, error) {
	var r streamsResult
	if err := s.job.run(ctx, &r); err != nil {
		return nil, err
	}
	return reading{s.name + "_us": r.US, s.name + "_memory_kb": r.Memory, s.name + "_goroutines": r.Goroutines}, nil
}
