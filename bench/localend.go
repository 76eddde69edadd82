package main

import (
	"context"
	"errors"
	"time"

	"github.com/chatixia-ai/mesh"
)

// A localEnd measures the end of an agent with a peer on the same host: how long Close takes after an answered request, and how
// long it takes to notice that the peer's process was killed.
type localEnd struct {
	name string
	end  func(ctx context.Context, l *farLink) error
}

func newCloseIdle(name string) side {
	return side{[]string{name}, &localEnd{name, func(_ context.Context, l *farLink) error { return l.agent.Close() }}}
}

func newDetectDead(name string) side {
	return side{[]string{name}, &localEnd{name, func(ctx context.Context, l *farLink) error {
		if err := l.far.child.Process.Kill(); err != nil {
			return err
		}
		select {
		case <-l.lost:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}}}
}

func (e *localEnd) setup(context.Context) error { return nil }
func (e *localEnd) close()                      {}

func (e *localEnd) round(ctx context.Context) (reading, error) {
	l, err := farMesh(mesh.InProcess, mesh.Network{}).link(ctx, smallSize)
	if err != nil {
		return nil, err
	}
	defer l.close()
	if err := l.echo(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, errors.New("the end does not come"))
	defer cancel()
	start := time.Now()
	if err := e.end(ctx, l); err != nil {
		return nil, err
	}
	return reading{e.name: float64(time.Since(start).Microseconds()) / 1e3}, nil
}
