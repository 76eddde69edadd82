package main

import (
	"context"
	"fmt"
	"time"
)

// A pipe carries messages one way.
type pipe interface {
	// send sends one message, and blocks while the pipe is full.
	send(ctx context.Context) error
	// flush sends what send has kept back.
	flush() error
	// arrived returns the counter of the messages at the far side.
	arrived() *counter
	close()
}

// A flow measures how many messages pass a pipe each second, from the first
// send until the last has arrived.
type flow struct {
	name  string
	scale float64 // what one message counts: 1, or its megabytes
	span  time.Duration
	open  func(ctx context.Context) (pipe, error)

	pipe  pipe
	count int64 // messages of a round
}

// newFlow is a side that gives messages per second.
func newFlow(o options, name string, open func(ctx context.Context) (pipe, error)) side {
	return side{[]string{name}, &flow{name: name, scale: 1, span: o.span(), open: open}}
}

// newBulk is a side that gives megabytes per second, of messages of size bytes.
func newBulk(o options, name string, size int, open func(ctx context.Context) (pipe, error)) side {
	return side{[]string{name}, &flow{name: name, scale: float64(size) / 1e6, span: o.span(), open: open}}
}

func (f *flow) setup(ctx context.Context) (err error) {
	if f.pipe, err = f.open(ctx); err != nil {
		return err
	}
	// Find out how many messages fill a round. The first try is a warm-up.
	f.count = 16
	for range 12 {
		elapsed, _, err := f.pass(ctx)
		if err != nil {
			return err
		}
		if elapsed >= f.span/4 {
			f.count = max(1, int64(float64(f.count)*f.span.Seconds()/elapsed.Seconds()))
			return nil
		}
		f.count *= 4
	}
	return nil
}

func (f *flow) round(ctx context.Context) (reading, error) {
	elapsed, still, err := f.pass(ctx)
	if err != nil {
		return nil, err
	}
	r := reading{f.name: float64(f.count) * f.scale / elapsed.Seconds()}
	if still > stall {
		return r, errStalled
	}
	return r, nil
}

// pass sends the messages of one round.
func (f *flow) pass(ctx context.Context) (elapsed, still time.Duration, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, roundTimeout, fmt.Errorf("%d messages did not pass within %v", f.count, roundTimeout))
	defer cancel()
	arrived := f.pipe.arrived()
	arrived.expect(f.count)
	longest := arrived.watch()
	start := time.Now()
	for i := int64(0); i < f.count && err == nil; i++ {
		err = f.pipe.send(ctx)
	}
	if err == nil {
		err = f.pipe.flush()
	}
	if err == nil {
		err = arrived.wait(ctx)
	}
	return time.Since(start), longest(), err
}

func (f *flow) close() {
	if f.pipe != nil {
		f.pipe.close()
	}
}
