package mesh

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/chatixia-ai/mesh/internal/link"
	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// Over inboxHigh bytes of one peer's messages that wait for handlers, or are
	// being handled, the peer is asked to pause; at inboxLow it may resume.
	inboxHigh = 8 << 20
	inboxLow  = 2 << 20
	// inboxHard is where messages are dropped and reported. The sidecar stops
	// reading long before; only one that knows no pause gets here.
	inboxHard = 256 << 20

	busyText = "busy"
)

var (
	// errInboxFull means that the handlers are too slow for a peer that cannot
	// be paused.
	errInboxFull = errors.New("mesh: message dropped: the handlers are too slow and the peer did not pause")
	// errPeerLeft is the cause of the end of a handler's context.
	errPeerLeft = fmt.Errorf("mesh: the peer whose message is handled is gone: %w", context.Canceled)
	// errDuplicateRun means that the peer made two requests with one id.
	errDuplicateRun = errors.New("mesh: message dropped: a request with this id from this peer is being handled already")
)

// An inbox takes what arrives from one peer, without ever making the link's
// reader wait: responses would wait with it. Messages that want no response, and
// the peer's comings and goings, pass through one queue in order; requests
// start at once, each in a goroutine of its own.
type inbox struct {
	m    *Mesh
	peer string

	mu       sync.Mutex
	queue    []item
	running  bool                 // a goroutine works through queue
	bytes    int                  // in queue and in requests
	requests int                  // being handled, or their responses not yet sent
	asked    map[string]*handling // the requests whose responses the peer waits for, by id
	gone     context.Context      // ends with the current peer link
	leave    context.CancelCauseFunc
	paused   link.Told[bool] // whether the sidecar was told to pause the peer
}

// A handling is the work on one request, up to its response.
type handling struct {
	id     string
	cancel context.CancelFunc
	freed  bool // by free
}

type item struct {
	msg   *Message   // or
	event *PeerEvent // one of the two
}

func newInbox(m *Mesh, peer string) *inbox {
	b := &inbox{m: m, peer: peer, asked: make(map[string]*handling)}
	b.gone, b.leave = context.WithCancelCause(m.ctx)
	return b
}

// connected begins a new link to the peer.
func (b *inbox) connected(e PeerEvent) {
	b.update(func() {
		b.leave(nil)
		clear(b.asked)
		b.gone, b.leave = context.WithCancelCause(b.m.ctx)
		// A pause for the previous link may have crossed the reconnect, and
		// would freeze the new one.
		b.paused.Again = b.paused.Last
		b.pushLocked(item{event: &e})
	})
}

// disconnected ends the link, and the contexts of its handlers: no response of
// theirs could be sent.
func (b *inbox) disconnected(e PeerEvent) {
	b.update(func() {
		b.leave(errPeerLeft) // not e.Err, which would pass for the error of whatever the handler waits for
		b.pushLocked(item{event: &e})
	})
	b.m.forgetPeer(b)
}

// message takes one message that is no response to a pending call.
func (b *inbox) message(msg *Message) {
	var dropped error
	busy := false
	b.update(func() {
		switch {
		case b.bytes > inboxHard:
			dropped = errInboxFull
		case !wire.WantsResponse(msg.Type, msg.RequestID):
			b.bytes += len(msg.Raw)
			b.pushLocked(item{msg: msg})
		case b.asked[msg.RequestID] != nil:
			dropped = errDuplicateRun
		case b.requests >= b.m.cfg.Limits.MaxRequests:
			busy = true
		default:
			b.runLocked(msg)
		}
	})
	switch {
	case busy:
		b.m.replyNow(msg, errorPayload(busyText))
	case dropped != nil:
		b.m.report(&PeerError{Op: "receive", Type: msg.Type, Peer: b.peer, RequestID: msg.RequestID, Err: dropped})
	}
}

// cancel ends the context of a request's handler: the requester gave up.
func (b *inbox) cancel(id string) {
	b.mu.Lock()
	h := b.asked[id]
	delete(b.asked, id)
	b.mu.Unlock()
	if h != nil {
		h.cancel()
	}
}

// runLocked starts a request's handler.
func (b *inbox) runLocked(msg *Message) {
	ctx, cancel := context.WithCancel(b.gone)
	h := &handling{id: msg.RequestID, cancel: cancel}
	b.asked[h.id] = h
	b.requests++
	b.bytes += len(msg.Raw)
	b.m.handlers.run(func() {
		defer cancel()
		defer func() { // the handler may also end its goroutine
			b.free(h)
			b.update(func() { b.bytes -= len(msg.Raw) })
			b.m.forgetPeer(b)
		}()
		b.respond(ctx, h, msg)
	})
}

// free gives up a request's place and id. It happens before the peer can see the
// response: the peer may use the id again at once, before respond has returned.
func (b *inbox) free(h *handling) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if h.freed {
		return
	}
	h.freed = true
	b.requests--
	if b.asked[h.id] == h {
		delete(b.asked, h.id)
	}
}

// pushLocked adds to the queue, and sees to it that a goroutine works through it.
func (b *inbox) pushLocked(it item) {
	if it.event != nil && b.m.cfg.OnPeer == nil {
		return
	}
	b.queue = append(b.queue, it)
	if !b.running {
		b.running = true
		b.m.handlers.run(b.work)
	}
}

// work handles the queue until it is empty.
func (b *inbox) work() {
	empty := false
	defer func() {
		if !empty { // a handler has ended its goroutine
			b.m.handlers.run(b.work)
		}
	}()
	for {
		it, ctx, ok := b.pop()
		switch {
		case !ok:
			empty = true
			b.m.forgetPeer(b)
			return
		case it.event != nil:
			b.m.guard(func() { b.m.cfg.OnPeer(*it.event) })
		default:
			b.notify(ctx, it.msg)
		}
	}
}

// pop takes the next item, with the context of its peer link. ok is false, and the
// queue idle from then on, if there is none or the mesh has been closed.
func (b *inbox) pop() (it item, ctx context.Context, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) == 0 || b.m.ctx.Err() != nil {
		b.queue, b.running = nil, false
		return item{}, nil, false
	}
	it = b.queue[0]
	b.queue[0] = item{}
	b.queue = b.queue[1:]
	return it, b.gone, true
}

// notify runs the handler of a message that wants no response.
func (b *inbox) notify(ctx context.Context, msg *Message) {
	defer b.update(func() { b.bytes -= len(msg.Raw) })
	if _, err := b.m.handle(ctx, msg); err != nil {
		b.m.report(&PeerError{Op: "handle", Type: msg.Type, Peer: msg.From, RequestID: msg.RequestID, Err: err})
	}
}

// idle reports whether no message of the peer waits or is being handled.
func (b *inbox) idle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.running && b.bytes == 0
}

// update changes the state, then tells the sidecar to pause or resume the peer
// where that follows.
func (b *inbox) update(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
	b.paused.SettleLocked(&b.mu, b)
}

// WantLocked reports whether the peer is to be paused.
func (b *inbox) WantLocked(paused bool) bool {
	return b.bytes > inboxHigh || paused && b.bytes > inboxLow
}

// Tell asks the sidecar to pause or resume the peer.
func (b *inbox) Tell(_, pause bool) { b.m.pausePeer(b.peer, pause) }

// respond runs the handler of a request and sends its response.
func (b *inbox) respond(ctx context.Context, h *handling, msg *Message) {
	free := func() { b.free(h) }
	returned := false
	defer func() {
		if !returned && ctx.Err() == nil {
			free()
			b.m.replyNow(msg, errorPayload("the handler ended its goroutine"))
		}
	}()
	reply, err := b.m.handle(ctx, msg)
	returned = true
	if ctx.Err() != nil {
		return // the requester gave up or is gone
	}
	out := responseTo(msg)
	switch {
	case err != nil:
		out.Payload = errorPayload(plain(err))
	case reply == nil:
		out.Payload = struct{}{} // agents in other languages expect an object
	default:
		out.Payload = reply
	}
	err = b.m.post(ctx, msg.From, &out, free)
	if errors.Is(err, ErrInvalid) || errors.Is(err, ErrTooLarge) {
		out.Payload = errorPayload("the handler's reply cannot be sent: " + plain(err))
		err = b.m.post(ctx, msg.From, &out, free)
	}
	if err != nil && ctx.Err() == nil {
		b.m.report(&PeerError{Op: "reply", Peer: msg.From, RequestID: msg.RequestID, Err: err})
	}
}

// responseTo returns the response to a request, but for its payload.
func responseTo(msg *Message) Message {
	return Message{
		Type: wire.ResponseType(msg.Type), RequestID: msg.RequestID,
		SourceAgent: msg.TargetAgent, TargetAgent: msg.SourceAgent,
	}
}

// errorPayload returns what agents respond to a request that failed:
// {"error": "text"}.
func errorPayload(text string) any {
	return struct {
		Error string `json:"error"`
	}{text}
}

// replyNow responds from the read path, which must not block.
func (m *Mesh) replyNow(msg *Message, payload any) {
	out := responseTo(msg)
	out.Payload = payload
	raw, err := out.encode(new([]byte), m.limits)
	if c := m.ipc(); err == nil && c != nil {
		err = c.writeNow(func(b []byte) []byte { return wire.AppendSend(b, msg.From, raw) })
	}
	if err != nil {
		m.report(&PeerError{Op: "reply", Peer: msg.From, RequestID: msg.RequestID, Err: err})
	}
}
