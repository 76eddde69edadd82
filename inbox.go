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
	// maxRefusals and refusalBytes bound the refusals that wait for a peer to take
	// them.
	maxRefusals  = 256
	refusalBytes = 64 << 10

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
	// errNotRefused means that a peer makes more requests than it may, and does not
	// read what it is told about that.
	errNotRefused = errors.New("mesh: request dropped: the peer has too many requests in work and does not read its responses")
)

// An inbox takes what arrives from one peer, without ever making the link's
// reader wait: responses would wait with it. Messages that want no response, and
// the peer's comings and goings, pass through one queue in order; requests
// start at once, each in a goroutine of its own.
type inbox struct {
	m     *Mesh
	peer  string
	quiet bool // OnPeer is not told of the peer

	types  typeName // of messages from the queue; like parsed owned by work
	parsed wire.Message

	mu       sync.Mutex
	queue    backlog
	running  bool                 // a goroutine works through queue
	bytes    int                  // charged: in queue, in requests, and in their responses
	ordered  int                  // of bytes: in queue, and in the message from it that is being handled
	requests int                  // being handled, or their responses not yet sent
	asked    map[string]*handling // the requests whose responses the peer waits for, by id
	refused  []*Message           // the responses to requests that are not handled
	refusals int                  // bytes of their strings
	refusing bool                 // a goroutine works through refused
	gone     context.Context      // ends with the current peer link
	leave    context.CancelCauseFunc
	holdback holdback
	waits    bool                 // for a larger share
	since    int                  // bytes of the queue's messages that have arrived while they were held back
	sinceNew int                  // bytes of requests that have arrived while new work was held back
	told     link.Told[wire.Stop] // what the sidecar was told to hold back of the peer
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
		b.dropRefusedLocked()
		b.gone, b.leave = context.WithCancelCause(b.m.ctx)
		// A pause for the previous link may have crossed the reconnect, and
		// would freeze the new one.
		b.told.Again = b.told.Last != wire.StopNothing
		b.announceLocked(e)
	})
}

// disconnected ends the link, and the contexts of its handlers: no response of
// theirs could be sent.
func (b *inbox) disconnected(e PeerEvent) {
	b.update(func() {
		b.leave(errPeerLeft) // not e.Err, which would pass for the error of whatever the handler waits for
		b.announceLocked(e)
	})
	b.m.forgetPeer(b)
}

// message takes one message that is no response to a pending call.
func (b *inbox) message(typ string, w *wire.Message, from *ipc) {
	id := string(w.RequestID)
	work := wire.WantsResponse(typ, id)
	if !work && id != "" && b.m.handler(typ) == nil {
		b.drop(typ, id, errUnexpectedResponse)
		return
	}
	var dropped error
	var quick *quickness
	if work {
		quick = b.m.quick(typ)
	}
	busy := false
	b.update(func() {
		switch {
		case b.m.inboxes.full(b.bytes):
			dropped = errInboxFull
		case !work:
			b.queuedLocked(b.queue.addMessage(w.Raw))
			b.startLocked()
		case b.asked[id] != nil:
			dropped = errDuplicateRun
		case b.requests >= b.m.cfg.Limits.MaxRequests:
			busy = true
		default:
			w.Detach()
			b.runLocked(b.m.received(b.peer, typ, id, w), quick, from)
		}
	})
	if busy && !b.refuse(typ, id, w) {
		dropped = errNotRefused
	}
	if dropped != nil {
		b.drop(typ, id, dropped)
	}
}

// drop reports a message that was dropped.
func (b *inbox) drop(typ, id string, why error) {
	b.m.report(&PeerError{Op: "receive", Type: typ, Peer: b.peer, RequestID: id, Err: why})
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

// handles reports whether the peer waits for the response to a request with an id.
func (b *inbox) handles(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked[id] != nil
}

// handling returns how many requests of the peer are in work.
func (b *inbox) handling() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.requests
}

// announceLocked has OnPeer told of the peer, behind what waits.
func (b *inbox) announceLocked(e PeerEvent) {
	if b.m.cfg.OnPeer == nil || b.quiet {
		return
	}
	n := b.queue.addEvent(e)
	b.ordered += n
	b.chargeLocked(n)
	b.startLocked()
}

// startLocked sees to it that a goroutine works through the queue.
func (b *inbox) startLocked() {
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
	for b.step() {
	}
	empty = true
	b.m.forgetPeer(b)
}

// step handles the next message or event of the queue, and reports whether there was
// one.
func (b *inbox) step() bool {
	raw, event, ctx, charge, ok := b.pop()
	if !ok {
		return false
	}
	defer b.update(func() { b.ordered -= charge; b.chargeLocked(-charge) }) // the handler may also end its goroutine
	if event != nil {
		b.m.guard(func() { b.m.cfg.OnPeer(*event) })
	} else {
		b.notify(ctx, raw)
	}
	return true
}

// pop takes the next message or event, with the context of its peer link. ok is false,
// and the queue idle from then on, if there is none or the mesh has been closed.
func (b *inbox) pop() (raw []byte, event *PeerEvent, ctx context.Context, charge int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.m.ctx.Err() == nil {
		raw, event, charge, ok = b.queue.next()
	}
	b.running = ok
	return raw, event, b.gone, charge, ok
}

// notify runs the handler of a message that wants no response.
func (b *inbox) notify(ctx context.Context, raw []byte) {
	if err := wire.ParseMessage(raw, b.m.limits.Checked(), &b.parsed); err != nil {
		b.m.report(fmt.Errorf("mesh: message from the sidecar rejected: %w", err)) // cannot happen: it was parsed before
		return
	}
	msg := b.m.received(b.peer, b.types.of(b.parsed.Type), string(b.parsed.RequestID), &b.parsed)
	b.parsed = wire.Message{}
	if _, err := b.m.handle(ctx, msg); err != nil {
		if errors.Is(err, ErrNoHandler) && !errors.As(err, new(*handlerError)) { // or it is that of whom the handler has asked
			b.m.dropped(msg.From, msg.Type, DropNoHandler)
			err = fmt.Errorf("%w; register one with Config.Handlers or Handle", err)
		}
		b.m.report(&PeerError{Op: "handle", Type: msg.Type, Peer: msg.From, RequestID: msg.RequestID, Err: err})
	}
}

// idle reports whether no message of the peer waits or is being handled.
func (b *inbox) idle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.running && b.bytes == 0 && !b.refusing
}

// update changes the state, then tells the sidecar to pause or resume the peer
// where that follows.
func (b *inbox) update(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
	b.told.SettleLocked(&b.mu, b)
}

// queuedLocked charges the peer for a message in the queue.
func (b *inbox) queuedLocked(n int) {
	b.ordered += n
	b.chargeLocked(n)
	if b.told.Last >= wire.StopOrdered {
		b.since += n
	}
}

// requestedLocked charges the peer for a request.
func (b *inbox) requestedLocked(n int) {
	b.chargeLocked(n)
	if b.told.Last >= wire.StopNewWork {
		b.sinceNew += n
	}
}

// chargeLocked charges the peer for n bytes of memory more, or less.
func (b *inbox) chargeLocked(n int) {
	b.bytes += n
	b.m.inboxes.add(n)
}

// WantLocked returns what the sidecar is to hold back of the peer.
func (b *inbox) WantLocked(last wire.Stop) wire.Stop {
	h, need := b.m.inboxes.judge(b.bytes, b.since+b.sinceNew, b.m.inboxes.share(), b.holdback)
	if h.stop() == wire.StopNothing || b.holdback.ignores && !h.ignores {
		b.since, b.sinceNew = 0, 0
	}
	b.holdback = h
	switch {
	case need > 0:
		b.m.inboxes.wait(b, need)
	case b.waits:
		b.m.inboxes.leave(b)
	}
	b.waits = need > 0
	if stop := h.stop(); stop != wire.StopNewWork || !b.fewCallsLocked(last) {
		return stop
	}
	b.sinceNew = 0 // what was on its way when new work was held back would add up
	return wire.StopOrdered
}

// fewCallsLocked reports whether requests take so little memory that the peer may make more of them, although it is held
// back: then its ordered messages are the ones that wait.
func (b *inbox) fewCallsLocked(last wire.Stop) bool {
	most := min(b.m.inboxes.high, b.m.inboxes.share()) / 4
	if last == wire.StopNewWork {
		most /= 2 // so that one request more or less does not make a difference each time
	}
	return b.bytes-b.ordered <= most
}

// Tell asks the sidecar to pause or resume the peer.
func (b *inbox) Tell(_, stop wire.Stop) { b.m.pausePeer(b.peer, stop) }

// settleInboxes has the inboxes that wait for a larger share look again.
func (m *Mesh) settleInboxes() {
	m.inboxes.settling.Store(false)
	for _, b := range m.inboxes.waiters() {
		b.update(func() {})
	}
}

// refuse has the peer told that it is busy, and reports whether it will be. A peer that
// does not take its responses gets no further ones: they are its own loss.
func (b *inbox) refuse(typ, id string, w *wire.Message) bool {
	if c, _, _ := b.m.taker(b.peer, wire.StopAll); c == nil {
		return false
	}
	msg := &Message{Type: typ, RequestID: id, SourceAgent: string(w.SourceAgent), TargetAgent: string(w.TargetAgent), From: b.peer}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.refused) >= maxRefusals || b.refusals+msg.cost() > refusalBytes {
		return false
	}
	b.refused = append(b.refused, msg)
	b.refusals += msg.cost()
	b.m.inboxes.add(msg.cost())
	if !b.refusing {
		b.refusing = true
		b.m.handlers.run(b.sayBusy)
	}
	return true
}

// sayBusy sends the refusals that wait, one at a time.
func (b *inbox) sayBusy() {
	for {
		msg, ctx := b.nextRefused()
		if msg == nil {
			b.m.forgetPeer(b)
			return
		}
		out := responseTo(msg)
		out.Payload = failedPayload{Error: busyText, Code: CodeBusy}
		h := &handling{b: b, freed: true}
		if err := b.m.postReply(ctx, msg, &out, h); err != nil && ctx.Err() == nil {
			b.failed(msg, err)
		}
		b.update(func() { b.chargeLocked(-h.bytes) })
	}
}

// nextRefused takes the next request to refuse, with the context of its peer link; nil if
// there is none.
func (b *inbox) nextRefused() (*Message, context.Context) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.refused) == 0 || b.m.ctx.Err() != nil {
		b.dropRefusedLocked()
		b.refusing = false
		return nil, nil
	}
	msg := b.refused[0]
	b.refused = b.refused[1:]
	b.refusals -= msg.cost()
	b.m.inboxes.add(-msg.cost())
	return msg, b.gone
}

func (b *inbox) dropRefusedLocked() {
	b.m.inboxes.add(-b.refusals)
	b.refused, b.refusals = nil, 0
}
