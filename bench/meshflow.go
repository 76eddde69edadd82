package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// meshPipe sends messages that a handler receives.
type meshPipe struct {
	pair  *meshPair
	msg   mesh.Message
	count *counter
	wrong *atomic.Int64 // length of a message that arrived in another size
	size  int
}

func openMeshPipe(mode mesh.Mode, size int) func(context.Context) (pipe, error) {
	return func(ctx context.Context) (pipe, error) {
		p, err := newMeshPipe(size)
		if err != nil {
			return nil, err
		}
		if p.pair, err = openMeshPair(ctx, mode, webRTC, p.handlers()); err != nil {
			return nil, err
		}
		return p, nil
	}
}

// newMeshPipe returns a pipe for messages of size bytes that still needs its pair.
func newMeshPipe(size int) (*meshPipe, error) {
	const typ = "bench"
	payload, err := fill(size, wire.MessageFields{Type: typ})
	if err != nil {
		return nil, err
	}
	return &meshPipe{msg: mesh.Message{Type: typ, Payload: payload}, count: newCounter(), wrong: new(atomic.Int64), size: size}, nil
}

// handlers are those of the far end.
func (p *meshPipe) handlers() map[string]mesh.Handler {
	return map[string]mesh.Handler{p.msg.Type: p.receive}
}

func (p *meshPipe) receive(_ context.Context, msg *mesh.Message) (any, error) {
	if len(msg.Raw) != p.size {
		p.wrong.Store(int64(len(msg.Raw)))
	}
	p.count.add(1)
	return nil, nil
}

func (p *meshPipe) send(ctx context.Context) error { return p.pair.near.Send(ctx, farID, p.msg) }
func (p *meshPipe) arrived() *counter              { return p.count }
func (p *meshPipe) close()                         { p.pair.close() }

func (p *meshPipe) flush() error {
	if n := p.wrong.Load(); n != 0 {
		return fmt.Errorf("a message of %d bytes arrived instead of %d", n, p.size)
	}
	return nil
}

// meshEcho sends requests to which a handler responds. Request and response have
// smallSize bytes each.
type meshEcho struct {
	pair *meshPair
	msg  mesh.Message
}

func openMeshEcho(mode mesh.Mode) func(context.Context) (echoer, error) {
	return func(ctx context.Context) (echoer, error) {
		payload, err := fill(smallSize, wire.MessageFields{Type: echoType, RequestID: echoID, Timeout: 30 * time.Second}) // as Request tells by default
		if err != nil {
			return nil, err
		}
		response, err := fill(smallSize, wire.MessageFields{Type: "bench_response", RequestID: echoID})
		if err != nil {
			return nil, err
		}
		pair, err := openMeshPair(ctx, mode, webRTC, map[string]mesh.Handler{echoType: reply(response)})
		if err != nil {
			return nil, err
		}
		e := &meshEcho{pair: pair, msg: mesh.Message{Type: echoType, Payload: payload}}
		if err := e.echo(ctx); err != nil {
			e.close()
			return nil, err
		}
		return e, nil
	}
}

func reply(response json.RawMessage) mesh.Handler {
	return func(_ context.Context, msg *mesh.Message) (any, error) {
		if len(msg.Raw) != smallSize {
			return nil, fmt.Errorf("the request has %d bytes instead of %d", len(msg.Raw), smallSize)
		}
		return response, nil
	}
}

func (e *meshEcho) echo(ctx context.Context) error {
	response, err := e.pair.near.Request(ctx, farID, e.msg)
	if err != nil {
		return err
	}
	if len(response.Raw) != smallSize {
		return fmt.Errorf("the response has %d bytes instead of %d: %s", len(response.Raw), smallSize, response.Raw)
	}
	return nil
}

func (e *meshEcho) close() { e.pair.close() }
