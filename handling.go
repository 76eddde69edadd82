package mesh

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// A handling is the work on one request, up to its response.
type handling struct {
	b      *inbox
	id     string
	cancel context.CancelFunc
	freed  bool // by free
	bytes  int  // charged to the inbox
}

// runLocked starts a request's handler: in the goroutine that has read the request, if that can do it, and those before it took no time.
func (b *inbox) runLocked(msg *Message, quick *quickness, from *ipc) {
	ctx, cancel := b.workContextLocked(msg.timeout)
	h := &handling{b: b, id: msg.RequestID, cancel: cancel, bytes: msg.cost()}
	b.asked[h.id] = h
	b.requests++
	b.m.inboxes.add(requestCost)
	b.requestedLocked(h.bytes)
	work := func() {
		defer cancel()
		defer h.end() // the handler may also end its goroutine
		defer quick.measure(time.Now())
		b.respond(ctx, h, msg)
	}
	if quick.begin() {
		if from.link.Leave(b.m.handlers.inline(func() {
			defer quick.end()
			work()
		})) {
			return
		}
		b.m.handlers.uncount()
		quick.end()
	}
	b.m.handlers.run(work)
}

const (
	// quickHandler is how long a handler may take that is not worth a change of goroutine.
	quickHandler = 100 * time.Microsecond
	// slowHandler is how long one takes that has held up others.
	slowHandler = time.Millisecond
	// quickEnough is the score from which on a handler is quick. Each request that took no longer adds one point, up to quickMost, and each
	// that did takes quickLoss away. After a slow one the score is slowScore.
	quickEnough, quickMost, quickLoss, slowScore = 4, 12, 6, -64
)

// A quickness is what is known of a handler.
type quickness struct {
	score   atomic.Int32
	working atomic.Bool // a reader runs it
}

// begin reports whether a reader may run the handler; if so it calls end afterwards. Only one reader may at a time, since it is not yet known how
// long that request takes.
func (q *quickness) begin() bool {
	return q.score.Load() >= quickEnough && q.working.CompareAndSwap(false, true)
}

func (q *quickness) end() { q.working.Store(false) }

// measure notes that a request was handled, which began then.
func (q *quickness) measure(began time.Time) {
	score := q.score.Load()
	switch took := time.Since(began); {
	case took > slowHandler:
		q.score.Store(slowScore)
	case took > quickHandler:
		q.score.Store(score - min(quickLoss, max(score, 0)))
	case score < quickMost:
		q.score.CompareAndSwap(score, score+1) // else another one counts
	}
}

// workContextLocked returns the context for the work on a request whose asker waits so
// long; 0 if it has not said.
func (b *inbox) workContextLocked(timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout > 0 {
		return context.WithTimeout(b.gone, timeout)
	}
	return context.WithCancel(b.gone)
}

// charge charges the peer for n bytes more until the end.
func (h *handling) charge(n int) {
	h.b.update(func() {
		h.bytes += n
		h.b.chargeLocked(n)
	})
}

// free gives up a request's place and id. It happens before the peer can see the
// response: the peer may use the id again at once, before respond has returned.
func (h *handling) free() {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	if h.freed {
		return
	}
	h.freed = true
	h.b.requests--
	if h.b.asked[h.id] == h {
		delete(h.b.asked, h.id)
	}
}

// end frees the request and what it was charged.
func (h *handling) end() {
	h.free()
	h.b.m.inboxes.add(-requestCost)
	h.b.update(func() { h.b.chargeLocked(-h.bytes) })
	h.b.m.forgetPeer(h.b)
}

// respond runs the handler of a request and sends its response.
func (b *inbox) respond(ctx context.Context, h *handling, msg *Message) {
	returned := false
	defer func() {
		if !returned {
			b.reply(ctx, h, msg, nil, &fault{error: errors.New("mesh: the handler ended its goroutine")})
		}
	}()
	reply, err := b.m.handle(ctx, msg)
	returned = true
	b.reply(ctx, h, msg, reply, err)
}

// reply sends the response to a request.
func (b *inbox) reply(ctx context.Context, h *handling, msg *Message, reply any, err error) {
	out := responseTo(msg)
	out.Payload = b.answer(msg, reply, err)
	if ctx.Err() != nil {
		return // the requester gave up or is gone
	}
	err = b.m.postReply(ctx, msg, &out, h)
	if instead := b.unsendable(msg, err); instead != nil {
		out.Payload = instead
		err = b.m.postReply(ctx, msg, &out, h)
	}
	if err != nil && ctx.Err() == nil {
		b.failed(msg, err)
	}
}

// answer returns the payload of a response. What the handler returned goes to the peer
// as it is. Of a fault of this agent the peer learns that there is one; what it is stays
// here.
func (b *inbox) answer(msg *Message, reply any, err error) any {
	var f *fault
	switch {
	case errors.As(err, &f):
		return b.faulty(msg, f)
	case err != nil:
		return failed(err)
	case reply == nil:
		return struct{}{} // agents in other languages expect an object
	}
	return reply
}

// unsendable returns what to send instead of a reply that cannot be sent to anyone, nil
// for any other error.
func (b *inbox) unsendable(msg *Message, err error) any {
	var f *fault
	switch {
	case errors.As(err, &f):
		return b.faulty(msg, f)
	case errors.Is(err, ErrTooLarge):
		b.failed(msg, err)
		return failedPayload{Error: faultText + ": the reply is too large", Code: CodeTooLarge}
	case errors.Is(err, ErrInvalid):
		b.failed(msg, err)
		return failedPayload{Error: faultText + unencodable, Code: CodeInternal}
	}
	return nil
}

// faulty reports a fault, and returns what the peer learns of it.
func (b *inbox) faulty(msg *Message, f *fault) any {
	b.m.report(&PeerError{Op: "handle", Type: msg.Type, Peer: msg.From, RequestID: msg.RequestID, Err: f})
	return failedPayload{Error: faultText + f.what, Code: CodeInternal}
}

// failed reports that a response was not sent.
func (b *inbox) failed(msg *Message, err error) {
	b.m.report(&PeerError{Op: "reply", Peer: b.peer, RequestID: msg.RequestID, Err: err})
}

const (
	// faultText is what a peer learns of a fault in this agent.
	faultText = "internal error"
	// unencodable is what it learns besides of a reply that is not JSON.
	unencodable = ": the reply cannot be encoded"
)

// A fault is an error of this agent's own doing, which is none of the peer's business.
type fault struct {
	error
	what string // what the peer learns besides faultText
}

// responseTo returns the response to a request, but for its payload.
func responseTo(msg *Message) Message {
	return Message{
		Type: wire.ResponseType(msg.Type), RequestID: msg.RequestID,
		SourceAgent: msg.TargetAgent, TargetAgent: msg.SourceAgent,
	}
}

// failed returns the payload of a response for the error of a handler.
func failed(err error) any {
	var e *Error
	if !errors.As(err, &e) {
		return failedPayload{Error: cmp.Or(plain(err), string(codeOf(err))), Code: codeOf(err)}
	}
	code := cmp.Or(e.Code, CodeApp)
	if len(code) > maxCode {
		code = CodeApp
	}
	return failedPayload{Error: cmp.Or(plain(err), string(code)), Code: code, Details: e.Details} // without a text it would be none
}
