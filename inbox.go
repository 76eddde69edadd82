package mesh

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// Between inboxHigh and inboxLow bytes of one peer's messages waiting for
	// handlers, or being handled, the peer has been asked to pause.
	inboxHigh = 8 << 20
	inboxLow  = 2 << 20
	// inboxHard is where messages are dropped and reported. The sidecar stops
	// reading long before; only one that knows no pause gets here.
	inboxHard = 256 << 20

	busyText = "busy"
)

var (
	errNoHandler = errors.New("mesh: no handler for the message")
	// errUnexpectedResponse: late, of an unknown id, or not from the peer asked.
	errUnexpectedResponse = errors.New("mesh: response dropped: no request to this peer waits for it")

	errInboxFull    = errors.New("mesh: message dropped: the handlers are too slow and the peer did not pause")
	errDuplicateRun = errors.New("mesh: message dropped: a request with this id from this peer is already being handled")
)

// An inbox takes what arrives from one peer, without ever making the link's
// reader wait: responses would wait with it. Messages that want no answer, and
// the peer's comings and goings, pass through one queue in order; requests
// start at once, each in a goroutine of its own.
type inbox struct {
	m    *Mesh
	peer string

	mu       sync.Mutex
	queue    []item
	running  bool                 // a goroutine works through queue
	bytes    int                  // in queue and in requests
	requests int                  // being handled, or their replies waiting
	asked    map[string]*handling // the requests that the peer waits for, by id
	gone     context.Context      // ends with the current peer link
	leave    context.CancelCauseFunc
	acting   bool
	paused   bool // the sidecar was asked to pause the peer
	again    bool // it has to be told anew, whatever it was told
}

// A handling is that of one request, up to its answer.
type handling struct {
	id     string
	cancel context.CancelFunc
	freed  bool
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
func (b *inbox) connected() {
	b.update(func() {
		b.leave(nil)
		clear(b.asked)
		b.gone, b.leave = context.WithCancelCause(b.m.ctx)
		// A pause for the previous link may have crossed the reconnect, and
		// would freeze the new one.
		b.again = b.paused
		b.push(item{event: &PeerEvent{Mesh: b.m, Peer: b.peer, Connected: true}})
	})
}

// disconnected ends the link: handlers of its requests can reply to nobody.
func (b *inbox) disconnected(reason error) {
	b.update(func() {
		b.leave(reason)
		b.push(item{event: &PeerEvent{Mesh: b.m, Peer: b.peer, Err: reason}})
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
		case !wantsReply(msg.Type, msg.RequestID):
			b.bytes += len(msg.Raw)
			b.push(item{msg: msg})
		case b.asked[msg.RequestID] != nil:
			dropped = errDuplicateRun
		case b.requests >= b.m.cfg.MaxRequests:
			busy = true
		default:
			b.run(msg)
		}
	})
	switch {
	case busy:
		b.m.replyNow(msg, errorPayload(busyText))
	case dropped != nil:
		b.m.report(&PeerError{Op: "message", Peer: b.peer, RequestID: msg.RequestID, Err: dropped})
	}
}

// cancel ends the context of a request's handler, for whom nobody waits now.
func (b *inbox) cancel(id string) {
	b.mu.Lock()
	h := b.asked[id]
	delete(b.asked, id)
	b.mu.Unlock()
	if h != nil {
		h.cancel()
	}
}

// run starts a request's handler; called with mu held.
func (b *inbox) run(msg *Message) {
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
		b.answer(ctx, h, msg)
	})
}

// free gives up a request's place and id. It happens before the reply can be
// seen: the peer may ask again at once, while we are not yet done.
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

// push queues an item; called with mu held.
func (b *inbox) push(it item) {
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
		b.mu.Lock()
		if len(b.queue) == 0 {
			b.queue, b.running, empty = nil, false, true
			b.mu.Unlock()
			b.m.forgetPeer(b)
			return
		}
		if b.m.ctx.Err() != nil {
			b.queue = b.queue[:0] // the application has closed the mesh
			b.mu.Unlock()
			continue
		}
		it, ctx := b.queue[0], b.gone
		b.queue[0] = item{}
		b.queue = b.queue[1:]
		b.mu.Unlock()
		if it.event != nil {
			b.m.guard(func() { b.m.cfg.OnPeer(*it.event) })
			continue
		}
		b.notify(ctx, it.msg)
	}
}

func (b *inbox) notify(ctx context.Context, msg *Message) {
	defer b.update(func() { b.bytes -= len(msg.Raw) })
	b.m.notify(ctx, msg)
}

// idle tells whether nothing of the peer's is waiting or being handled.
func (b *inbox) idle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.running && b.bytes == 0
}

// update changes the state, then tells the sidecar to pause or resume the peer
// where that follows. Like remote.update it writes without the lock and leaves
// the last word to the goroutine that acts.
func (b *inbox) update(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
	if b.acting {
		return
	}
	b.acting = true
	for {
		want := b.bytes > inboxHigh || b.paused && b.bytes > inboxLow
		if want == b.paused && !b.again {
			break
		}
		b.paused, b.again = want, false
		b.mu.Unlock()
		b.m.flow(b.peer, want)
		b.mu.Lock()
	}
	b.acting = false
}

// flow asks the sidecar to pause or resume a peer.
func (m *Mesh) flow(peer string, pause bool) {
	s := m.session()
	if s == nil || !s.has(wire.FeatureFlow) {
		return
	}
	// An error means that the link is gone, and the pause with it.
	_ = s.link.writeNow(nil, func(b []byte) []byte {
		if pause {
			return wire.AppendPause(b, peer, false)
		}
		return wire.AppendResume(b, peer)
	})
}

// answer runs the handler of a request and sends its reply.
func (b *inbox) answer(ctx context.Context, h *handling, msg *Message) {
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
		return // the asker gave up or is gone: nobody waits
	}
	out := replyTo(msg)
	switch {
	case err != nil:
		out.Payload = errorPayload(err.Error())
	case reply == nil:
		out.Payload = struct{}{} // agents in other languages expect an object
	default:
		out.Payload = reply
	}
	err = b.m.post(ctx, msg.From, &out, free)
	if errors.Is(err, ErrInvalid) || errors.Is(err, ErrTooLarge) {
		out.Payload = errorPayload("the handler's reply cannot be sent: " + err.Error())
		err = b.m.post(ctx, msg.From, &out, free)
	}
	if err != nil && ctx.Err() == nil {
		b.m.report(&PeerError{Op: "reply", Peer: msg.From, RequestID: msg.RequestID, Err: err})
	}
}

// notify runs the handler of a message that wants no answer.
func (m *Mesh) notify(ctx context.Context, msg *Message) {
	if _, err := m.handle(ctx, msg); err != nil {
		m.report(&PeerError{Op: "handle " + msg.Type, Peer: msg.From, RequestID: msg.RequestID, Err: err})
	}
}

// handle runs the handler of a message's type. Its panic is an error like any
// other: a peer's message must not end the program.
func (m *Mesh) handle(ctx context.Context, msg *Message) (reply any, err error) {
	h := m.handler(msg.Type)
	switch {
	case h != nil:
	case msg.Type == typePing:
		return struct{}{}, nil
	case msg.RequestID != "" && !wantsReply(msg.Type, msg.RequestID):
		return nil, errUnexpectedResponse
	default:
		return nil, fmt.Errorf("%w: type %q; register one with Config.Handlers or Handle", errNoHandler, msg.Type)
	}
	defer func() {
		if p := recover(); p != nil {
			m.log.Error().Str("type", msg.Type).Str("peer", msg.From).Interface("panic", p).Bytes("stack", debug.Stack()).Msg("handler panicked")
			reply, err = nil, fmt.Errorf("mesh: handler of %q panicked: %v", msg.Type, p)
		}
	}()
	return h(ctx, msg)
}

// guard runs a callback of the application that has no reply to fail.
func (m *Mesh) guard(f func()) {
	defer func() {
		if p := recover(); p != nil {
			m.log.Error().Interface("panic", p).Bytes("stack", debug.Stack()).Msg("callback panicked")
		}
	}()
	f()
}

func replyTo(msg *Message) Message {
	return Message{
		Type: responseType(msg.Type), RequestID: msg.RequestID,
		SourceAgent: msg.TargetAgent, TargetAgent: msg.SourceAgent,
	}
}

func errorPayload(text string) any {
	return struct {
		Error string `json:"error"`
	}{text}
}

// replyNow answers from the read path, which must not wait.
func (m *Mesh) replyNow(msg *Message, payload any) {
	out := replyTo(msg)
	out.Payload = payload
	raw, err := out.encode(new([]byte), m.limits)
	if s := m.session(); err == nil && s != nil {
		err = s.link.writeNow(nil, func(b []byte) []byte { return wire.AppendSend(b, msg.From, raw) })
	}
	if err != nil {
		m.report(&PeerError{Op: "reply", Peer: msg.From, RequestID: msg.RequestID, Err: err})
	}
}
