package signal

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ping notices that the server, or the way to it, is gone without a close frame.
func (cn *connection) ping(ctx context.Context) error {
	tick := time.NewTicker(cn.client.timing.ping)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := cn.pingOnce(ctx, cn.client.timing.pong); err != nil {
			return err
		}
	}
}

// probe pings when the client is asked to, and has less patience than ping.
func (cn *connection) probe(ctx context.Context) error {
	for {
		select {
		case <-cn.client.probes:
		case <-ctx.Done():
			return ctx.Err()
		}
		if moved(cn.raw) {
			reset(cn.raw)
			return errMoved
		}
		if err := cn.pingOnce(ctx, cn.client.timing.probe); err != nil {
			return err
		}
		cn.client.answered()
	}
}

// pingOnce has the server respond within limit. A message is as good as the pong, which may lie behind many.
func (cn *connection) pingOnce(ctx context.Context, limit time.Duration) error {
	before := cn.heard.Load()
	pong, cancel := context.WithTimeoutCause(ctx, limit, errSilent)
	defer cancel()
	err := cn.ws.Ping(pong)
	switch {
	case !errors.Is(context.Cause(pong), errSilent):
		return err
	case cn.heard.Load() != before:
		return nil
	}
	reset(cn.raw)
	return fmt.Errorf("no pong within %v: %w", limit, errSilent)
}

var errSilent = errors.New("the server, or the way to it, is silent")

// within is [context.WithTimeout], and resets the connection when the time is over.
func (cn *connection) within(ctx context.Context, limit time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(limit, func() {
		reset(cn.raw)
		cancel(errSilent)
	})
	return ctx, func() {
		timer.Stop()
		cancel(nil)
	}
}
