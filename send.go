package mesh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// Send sends a message to one peer. It returns nil once the message is on its
// way to a peer whose link is live: it will arrive, once, unless the peer goes
// (Config.OnPeer) or the message fails later (Config.OnError). Messages without a
// RequestID arrive in order; requests and responses may overtake them.
// Send blocks, under ctx, while that peer is congested.
//
// Errors are a *PeerError, which wraps ErrNotConnected, ErrPeerGone if the peer
// went while Send blocked, ErrSidecarLost, ErrTooLarge, ErrInvalid, the reason for
// which the mesh ended, or the cause of ctx.
func (m *Mesh) Send(ctx context.Context, peer string, msg Message) error {
	if f := m.wrappers.send; f != nil {
		return f(ctx, peer, msg)
	}
	return m.send(ctx, peer, msg)
}

func (m *Mesh) send(ctx context.Context, peer string, msg Message) error {
	if err := m.post(ctx, peer, &msg); err != nil {
		return &PeerError{Op: "send", Peer: peer, RequestID: msg.RequestID, Err: err}
	}
	return nil
}

// Broadcast sends a message to every peer whose link is live. Peers that keep
// up get it at once; it blocks, under ctx, for the congested ones. The peers not
// reached are in a *BroadcastError, each with an error like Send's. For a message
// that no peer could be sent the error wraps ErrInvalid or ErrTooLarge. With no
// peers Broadcast returns nil.
func (m *Mesh) Broadcast(ctx context.Context, msg Message) error {
	if f := m.wrappers.broadcast; f != nil {
		return f(ctx, "", msg)
	}
	return m.broadcast(ctx, msg)
}

func (m *Mesh) broadcast(ctx context.Context, msg Message) error {
	buf := m.buffer()
	defer m.buffers.Put(buf)
	raw, err := msg.encode(buf, m.limits)
	if err != nil {
		return fmt.Errorf("mesh: broadcast: %w", inner{err})
	}
	if msg.RequestID != "" && slices.ContainsFunc(m.Peers(), func(p Peer) bool { return m.passesForResponse(p.ID, &msg) }) {
		return fmt.Errorf("mesh: broadcast: %w", inner{because(ErrInvalid, errOwnRequest)})
	}
	by := heldBackBy(&msg)
	ready, paused, err := m.postToReady(ctx, raw, by)
	var failed []*PeerError
	if err != nil {
		for _, id := range ready {
			failed = append(failed, &PeerError{Op: "broadcast", Peer: id, Err: err})
		}
	}
	failed = append(failed, m.postAll(ctx, paused, raw, by)...)
	switch {
	case len(failed) > 0:
	case err != nil:
		return fmt.Errorf("mesh: broadcast: %w", inner{err})
	default:
		return nil
	}
	slices.SortFunc(failed, func(a, b *PeerError) int { return cmp.Compare(a.Peer, b.Peer) })
	return &BroadcastError{Failed: failed}
}

// postToReady writes one line for the peers that keep up, and returns them and the
// others. The line names the others: sidecar and agent may differ for a moment
// on who is paused, and so no peer gets the message twice or misses it.
func (m *Mesh) postToReady(ctx context.Context, raw []byte, by wire.Stop) (ready, paused []string, err error) {
	if err := m.acquire(ctx, m.turn); err != nil {
		_, ready, paused = m.split(by)
		return ready, paused, err
	}
	defer func() { <-m.turn }()
	for {
		c, ready, paused := m.split(by)
		switch {
		case m.ctx.Err() != nil:
			return ready, nil, m.closedError()
		case len(ready) == 0:
			return nil, paused, nil
		}
		if err := c.tooLarge(raw); err != nil {
			return append(ready, paused...), nil, err
		}
		room, err := c.tryWrite(func(b []byte) []byte { return wire.AppendBroadcast(b, raw, paused) })
		if err == nil && room != nil {
			err = c.waitRoom(ctx, room)
		}
		if err != nil || room == nil {
			c.use(err)
			return ready, paused, err
		}
	}
}

// split returns the live peers that keep up, and those for which a message is held
// back by such a pause.
func (m *Mesh) split(by wire.Stop) (c *ipc, ready, paused []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, p := range m.peers {
		switch {
		case !p.live:
		case p.stop < by && m.current != nil:
			ready = append(ready, id)
		default:
			paused = append(paused, id)
		}
	}
	return m.current, ready, paused
}

// acquire acquires a one-slot semaphore, under ctx.
func (m *Mesh) acquire(ctx context.Context, slot chan struct{}) error {
	select {
	case slot <- struct{}{}:
		return nil
	default:
	}
	select {
	case slot <- struct{}{}:
		return nil
	case <-m.ctx.Done():
		return m.closedError()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// postAll posts to congested peers, side by side, and returns those not reached.
func (m *Mesh) postAll(ctx context.Context, peers []string, raw []byte, by wire.Stop) []*PeerError {
	errs := make([]error, len(peers))
	var wg sync.WaitGroup
	for i, id := range peers {
		wg.Go(func() { errs[i] = m.postRaw(ctx, id, raw, by) })
	}
	wg.Wait()
	var failed []*PeerError
	for i, id := range peers {
		if errs[i] != nil {
			failed = append(failed, &PeerError{Op: "broadcast", Peer: id, Err: errs[i]})
		}
	}
	return failed
}

// post encodes a message and gives it to the sidecar as soon as the peer takes it.
func (m *Mesh) post(ctx context.Context, peer string, msg *Message) error {
	if peer == "" {
		return fmt.Errorf("%w: the peer id is empty", ErrInvalid)
	}
	if m.passesForResponse(peer, msg) {
		return because(ErrInvalid, errOwnRequest)
	}
	buf := m.buffer()
	defer m.buffers.Put(buf)
	raw, err := msg.encode(buf, m.limits)
	if err != nil {
		return err
	}
	return m.postRaw(ctx, peer, raw, heldBackBy(msg))
}

// errOwnRequest tells a handler how to respond.
var errOwnRequest = errors.New("mesh: under the id of a request that is being handled the peer would take this message for the response; " +
	"return the response from the handler, and send what comes before it by TypedStream")

// passesForResponse reports whether a peer would take a message for the response to a
// request of its own that is being handled.
func (m *Mesh) passesForResponse(peer string, msg *Message) bool {
	if msg.RequestID == "" || !wire.CanRespond(msg.Type) {
		return false
	}
	p := m.peer(peer)
	return p != nil && p.inbox.handles(msg.RequestID)
}

// postReply gives the response to a message to the sidecar. It is encoded when the peer
// takes it, one at a time: of any number of responses that wait, one takes memory for its
// text. h is charged for that, and freed as the line is added, before that can be seen,
// with the link's lock held.
func (m *Mesh) postReply(ctx context.Context, to, reply *Message, h *handling) error {
	turn, err := m.takeTurn(ctx, to.From, wire.StopAll)
	if err != nil {
		return err
	}
	if turn != nil {
		defer func() { <-turn }()
	}
	if _, err := m.await(ctx, to.From, wire.StopAll); err != nil {
		return err
	}
	buf := m.buffer()
	defer m.buffers.Put(buf)
	raw, err := m.encodeReply(to, *reply, buf)
	if err != nil {
		return err
	}
	h.charge(cap(raw))
	return m.write(ctx, to.From, raw, wire.StopAll, h.free)
}

// encodeReply returns the bytes of a response. Code of the application that fails or
// panics is a fault.
func (m *Mesh) encodeReply(to *Message, reply Message, buf *[]byte) (raw []byte, err error) {
	defer m.recovered(to, &err)
	text, err := payload(reply.Payload)
	if err != nil {
		return nil, &fault{err, unencodable}
	}
	reply.Payload = text
	return reply.encode(buf, m.limits)
}

// buffer returns a buffer from m.buffers, where it belongs again as soon as the
// message in it has been copied onto the link.
func (m *Mesh) buffer() *[]byte {
	if buf, ok := m.buffers.Get().(*[]byte); ok {
		return buf
	}
	return new([]byte)
}

// postRaw is post for an encoded message.
func (m *Mesh) postRaw(ctx context.Context, peer string, raw []byte, by wire.Stop) error {
	turn, err := m.takeTurn(ctx, peer, by)
	if err != nil {
		return err
	}
	if turn != nil {
		defer func() { <-turn }()
	}
	return m.write(ctx, peer, raw, by, func() {})
}

// write gives an encoded message to the sidecar as soon as the peer takes it. It is the
// caller's turn. added is called as the line is added, with the link's lock held.
func (m *Mesh) write(ctx context.Context, peer string, raw []byte, by wire.Stop, added func()) error {
	for {
		c, err := m.await(ctx, peer, by)
		if err == nil {
			err = c.tooLarge(raw)
		}
		if err != nil {
			return err
		}
		room, err := c.tryWrite(func(b []byte) []byte {
			added()
			return wire.AppendSend(b, peer, raw)
		})
		if err != nil || room == nil {
			c.use(err)
			return err
		}
		if err := c.waitRoom(ctx, room); err != nil {
			return err
		}
	}
}

// use notes that a message was accepted, if err is nil.
func (c *ipc) use(err error) {
	if err == nil && !c.used.Load() {
		c.used.Store(true)
	}
}

// takeTurn blocks until it is the caller's turn to write a message to a peer that is
// held back by such a pause, and returns
// the semaphore to release afterwards; nil if the peer is not known, for which
// await has the error.
func (m *Mesh) takeTurn(ctx context.Context, id string, by wire.Stop) (turn chan struct{}, err error) {
	p := m.peer(id)
	if p == nil {
		return nil, nil
	}
	turn = p.turns[by]
	return turn, m.acquire(ctx, turn)
}

// await blocks until the peer takes a message that is held back by such a pause, and
// returns the link to write to. A busy peer takes responses all the same: it may be
// waiting for one.
func (m *Mesh) await(ctx context.Context, id string, by wire.Stop) (*ipc, error) {
	missing := ErrNotConnected
	for {
		c, changed, err := m.taker(id, by)
		if c != nil && ctx.Err() != nil {
			// A response's ctx ends with the link that its request came on. On the
			// peer's next link it could pass for the response to another request.
			return nil, context.Cause(ctx)
		}
		if c != nil {
			return c, nil
		}
		if errors.Is(err, ErrNotConnected) {
			err = missing
		}
		if err != nil {
			return nil, err
		}
		missing = ErrPeerGone
		select {
		case <-changed:
		case <-m.ctx.Done():
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// taker returns the link to write to, or a channel that is closed when it is worth
// trying again, or the error if it is not.
func (m *Mesh) taker(id string, by wire.Stop) (c *ipc, changed <-chan struct{}, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.peers[id]
	switch {
	case m.ctx.Err() != nil:
		return nil, nil, m.closedError()
	case (p == nil || !p.live) && m.current == nil:
		return nil, nil, ErrSidecarLost
	case p == nil || !p.live:
		return nil, nil, ErrNotConnected
	case m.current == nil: // the link to its sidecar is just beginning, or ending
	case p.stop < by:
		return m.current, nil, nil
	}
	return nil, p.changed, nil
}
