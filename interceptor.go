package mesh

import (
	"context"
	"iter"
)

// An Interceptor wraps what a mesh sends, asks and handles: for logs, traces, permission,
// retries. Each function gets the next step and returns what is to be called in its
// place; a nil one wraps nothing. Of Config.Interceptors the first is the outermost. What
// the functions return is called from many goroutines at once.
type Interceptor struct {
	// Send wraps Send, Broadcast, whose peer is "", and the chunks that a TypedStream
	// emits.
	Send func(next SendFunc) SendFunc
	// Call wraps Request and Call. The reply of a failed one is in a *RemoteError.
	Call func(next CallFunc) CallFunc
	// Stream wraps CallStream.
	Stream func(next StreamFunc) StreamFunc
	// Handle wraps every handler, of requests and of other messages. What it returns in place
	// of the handler's reply or error is what the peer gets.
	Handle func(next Handler) Handler
}

// A SendFunc sends a message to a peer, as Send does.
type SendFunc func(ctx context.Context, peer string, msg Message) error

// A CallFunc makes a request, as Request does.
type CallFunc func(ctx context.Context, peer string, msg Message) (*Message, error)

// A StreamFunc makes a request and yields the chunks of the response and then the
// response itself, or the error with which it has failed.
type StreamFunc func(ctx context.Context, peer string, msg Message) iter.Seq2[*Message, error]

// wrappers are the Interceptors of a mesh, put together. They are nil if there is nothing
// to wrap, which then costs nothing.
type wrappers struct {
	send, broadcast SendFunc
	call            CallFunc
	stream          StreamFunc
	handle          []func(Handler) Handler // the outermost first
}

func (m *Mesh) wrap(list []Interceptor) (w wrappers) {
	for i := len(list) - 1; i >= 0; i-- {
		in := &list[i]
		if in.Send != nil {
			w.send = in.Send(orElse(w.send, m.send))
			w.broadcast = in.Send(orElse(w.broadcast, func(ctx context.Context, _ string, msg Message) error { return m.broadcast(ctx, msg) }))
		}
		if in.Call != nil {
			w.call = in.Call(orElse(w.call, m.request))
		}
		if in.Stream != nil {
			w.stream = in.Stream(orElse(w.stream, m.stream))
		}
	}
	for i := range list {
		if wrap := list[i].Handle; wrap != nil {
			w.handle = append(w.handle, wrap)
		}
	}
	return w
}

// orElse returns f, or without one last.
func orElse[F SendFunc | CallFunc | StreamFunc](f, last F) F {
	if f != nil {
		return f
	}
	return last
}

// handler returns a handler of the application with what is around it.
func (w *wrappers) handler(h Handler) Handler {
	for i := len(w.handle) - 1; i >= 0; i-- {
		h = w.handle[i](h)
	}
	return h
}
