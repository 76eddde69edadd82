package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// An echoer sends a message and gets it back, or a response.
type echoer interface {
	// echo blocks until the response has arrived.
	echo(ctx context.Context) error
	close()
}

// A latency measures round trips, one after the other: their median, and the
// 99th percentile beside it.
type latency struct {
	name, tail string
	span       time.Duration
	open       func(ctx context.Context) (echoer, error)
	echoer     echoer
}

// newLatency is a side that gives "<name>_us" and "<name>_p99_us".
func newLatency(o options, name string, open func(ctx context.Context) (echoer, error)) side {
	l := &latency{name: name + "_us", tail: name + "_p99_us", span: o.span(), open: open}
	return side{[]string{l.name, l.tail}, l}
}

func (l *latency) setup(ctx context.Context) (err error) {
	if l.echoer, err = l.open(ctx); err != nil {
		return err
	}
	_, err = l.trips(ctx)
	return err
}

func (l *latency) round(ctx context.Context) (reading, error) {
	trips, err := l.trips(ctx)
	if err != nil {
		return nil, err
	}
	slices.Sort(trips)
	r := reading{l.name: percentile(trips, 50), l.tail: percentile(trips, 99)}
	if trips[len(trips)-1] > float64(stall.Microseconds()) {
		return r, errStalled
	}
	return r, nil
}

// trips returns the durations of one round in microseconds.
func (l *latency) trips(ctx context.Context) ([]float64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, roundTimeout, fmt.Errorf("no response within %v", roundTimeout))
	defer cancel()
	trips := make([]float64, 0, 1<<16)
	for start := time.Now(); time.Since(start) < l.span; {
		before := time.Now()
		if err := l.echoer.echo(ctx); err != nil {
			return nil, err
		}
		if ctx.Err() != nil { // bare connections know no context
			return nil, context.Cause(ctx)
		}
		trips = append(trips, float64(time.Since(before).Nanoseconds())/1e3)
	}
	return trips, nil
}

func (l *latency) close() {
	if l.echoer != nil {
		l.echoer.close()
	}
}
