package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// Streamed replies: a request has a response, and before it any number of chunks.

// TypedStream is Typed for a function that responds bit by bit. emit sends a chunk: it
// blocks while the peer is behind, under the context of the function, which ends when
// the peer gives up. What the function returns is the response, which comes last. A peer
// that has made a plain Request gets the response alone.
func TypedStream[Req, Chunk, Res any](f func(ctx context.Context, from Peer, req Req, emit func(Chunk) error) (Res, error)) Handler {
	return func(ctx context.Context, msg *Message) (any, error) {
		var req Req
		if err := msg.decodeArgument(&req); err != nil {
			return nil, err
		}
		return f(ctx, msg.peer(), req, func(c Chunk) error { return msg.emit(ctx, c) })
	}
}

// emit sends a chunk of the response to a request.
func (m *Message) emit(ctx context.Context, payload any) error {
	if m.mesh == nil || m.RequestID == "" {
		return because(ErrInvalid, errNoAsker)
	}
	chunk := responseTo(m)
	chunk.Type, chunk.Payload = wire.ChunkType(m.Type), payload
	return m.mesh.Send(ctx, m.From, chunk)
}

var errNoAsker = errors.New("mesh: the message is no request, so that there is nobody to respond to")

// A StreamOption is an option of CallStream.
type StreamOption func(*streamOptions)

type streamOptions struct{ final any }

// Final has CallStream decode the response, which comes after the chunks, into v, a
// pointer.
func Final(v any) StreamOption { return func(o *streamOptions) { o.final = v } }

// CallStream makes a request of a type and yields the chunks of its response as they
// come, decoded into Chunk. peer is the id of one, or BySkill. The request is made when the loop begins, and given up when
// it is left. The last pair has an error if the request has failed, which is like one of
// Request. If ctx has no deadline, Config.RequestTimeout bounds how long each chunk, and
// the response, may take to come.
//
//	for token, err := range mesh.CallStream[Token](ctx, m, "bob", "chat_request", prompt, mesh.Final(&summary)) {
func CallStream[Chunk any, To ~string](ctx context.Context, m *Mesh, peer To, typ string, req any, options ...StreamOption) iter.Seq2[Chunk, error] {
	var o streamOptions
	for _, set := range options {
		set(&o)
	}
	return func(yield func(Chunk, error) bool) {
		for msg, err := range m.streamTo(ctx, asTarget(peer), Message{Type: typ, Payload: req}) {
			var chunk Chunk
			switch {
			case err != nil:
			case msg != nil && wire.IsChunk(msg.Type):
				err = msg.decodeResponse("request", &chunk)
			case o.final != nil:
				if err = msg.decodeResponse("request", o.final); err == nil {
					return
				}
			default:
				return
			}
			if !yield(chunk, err) || err != nil {
				return
			}
		}
	}
}

// stream makes a request and yields the chunks of its response, and at last that, or the error with which it has failed.
func (m *Mesh) stream(ctx context.Context, peer string, msg Message) iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		if msg.RequestID == "" {
			msg.RequestID = m.ids.next()
		}
		idle := time.Duration(0)
		if deadline, ok := ctx.Deadline(); ok {
			msg.timeout = max(time.Until(deadline), 1)
		} else {
			idle = m.cfg.RequestTimeout
		}
		r, err := m.askStream(ctx, peer, &msg)
		if err != nil {
			yield(nil, &PeerError{Op: "request", Peer: peer, RequestID: msg.RequestID, Err: err, unsent: true})
			return
		}
		defer r.close()
		for {
			msg, err := r.next(ctx, idle)
			if err != nil {
				err = &PeerError{Op: "request", Peer: peer, RequestID: r.call.key.id, Err: err}
			}
			if !yield(msg, err) || err != nil || !wire.IsChunk(msg.Type) {
				return
			}
		}
	}
}

// replies are what has come for a request whose chunks are wanted.
type replies struct {
	m    *Mesh
	call *call
}

func (m *Mesh) askStream(ctx context.Context, peer string, msg *Message) (*replies, error) {
	chunks := &chunkQueue{wake: make(chan struct{}, 1)}
	call, err := m.calls.add(peer, msg.RequestID, chunks)
	if err != nil {
		return nil, err
	}
	if err := m.post(ctx, peer, msg); err != nil {
		m.calls.drop(call)
		return nil, err
	}
	return &replies{m, call}, nil
}

// next blocks until there is a chunk or the response, under ctx, and if idle is not 0 for no longer than that.
func (r *replies) next(ctx context.Context, idle time.Duration) (*Message, error) {
	if idle > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, idle)
		defer cancel()
	}
	for {
		if msg := r.call.chunks.take(); msg != nil {
			return msg, nil
		}
		select {
		case <-r.call.chunks.wake:
		case result := <-r.call.done:
			r.call.done <- result // for the next turn
			if msg := r.call.chunks.take(); msg != nil {
				return msg, nil
			}
			if result.err != nil {
				return nil, result.err
			}
			return result.reply, result.reply.failure()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// close gives the request up, if it has not ended.
func (r *replies) close() {
	if r.m.calls.drop(r.call) {
		r.m.sendCancel(r.call.key.peer, r.call.key.id)
	}
	r.call.chunks.close()
}

// A chunkQueue holds the chunks that nobody has taken yet, in order. They are charged to the peer like messages that its
// handler has not taken: a loop that is slow makes the peer wait. Its lock is not held while the inbox is told, which may lead back here.
type chunkQueue struct {
	wake chan struct{} // buffered 1: there is one

	mu     sync.Mutex
	list   []*Message
	inbox  *inbox // of the peer
	closed bool
}

// add reports whether there was room.
func (q *chunkQueue) add(b *inbox, msg *Message) bool {
	n := msg.cost()
	if !b.takeChunk(n) {
		return false
	}
	q.mu.Lock()
	closed := q.closed
	if !closed {
		q.inbox, q.list = b, append(q.list, msg)
	}
	q.mu.Unlock()
	if closed {
		b.giveChunk(n)
		return true
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return true
}

// take returns the next one, nil if there is none.
func (q *chunkQueue) take() *Message {
	q.mu.Lock()
	if len(q.list) == 0 {
		q.mu.Unlock()
		return nil
	}
	msg, inbox := q.list[0], q.inbox
	q.list[0] = nil
	q.list = q.list[1:]
	q.mu.Unlock()
	inbox.giveChunk(msg.cost())
	return msg
}

// close drops all, and what is to come.
func (q *chunkQueue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	for q.take() != nil {
	}
}

// takeChunk charges the peer for a chunk, and reports whether there is room for it.
func (b *inbox) takeChunk(n int) (ok bool) {
	b.update(func() {
		if ok = !b.m.inboxes.full(b.bytes); ok {
			b.queuedLocked(n)
		}
	})
	return ok
}

func (b *inbox) giveChunk(n int) {
	b.update(func() { b.ordered -= n; b.chargeLocked(-n) })
	b.m.forgetPeer(b)
}

// receiveChunk takes a chunk for the call that waits for it, and reports whether there is one. Others are for the handler of just their
// type, or for nobody: those of a call that wants the response alone, or was given up.
func (m *Mesh) receiveChunk(p *peer, typ string, w *wire.Message) bool {
	call := m.calls.find(p.id, w.RequestID)
	if call == nil || call.chunks == nil {
		return !m.handles(typ)
	}
	w.Detach()
	if !call.chunks.add(p.inbox, m.received(p.id, typ, call.key.id, w)) && m.calls.fail(p.id, call.key.id, errInboxFull) {
		m.sendCancel(p.id, call.key.id)
	}
	return true
}

// decodeResponse decodes the payload of a response or a chunk into v.
func (m *Message) decodeResponse(op string, v any) error {
	if m == nil {
		return fmt.Errorf("%w: an interceptor has returned neither a response nor an error", ErrInvalid)
	}
	raw, err := payload(m.Payload) // which an interceptor may have set
	if raw == nil && err == nil {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(raw, v)
	}
	if err != nil {
		return &PeerError{Op: op, Peer: m.From, RequestID: m.RequestID, Err: because(errBadResponse, err)}
	}
	return nil
}

var errBadResponse = errors.New("mesh: the response cannot be decoded")
