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

// Send gives a message to one peer. It returns nil once the message is on its
// way to a peer whose link is live: it will arrive, in order and once, unless
// the peer goes (Config.OnPeer) or the message fails later (Config.OnError).
// It waits, under ctx, while that peer is congested. Errors are *PeerError.
func (m *Mesh) Send(ctx context.Context, peer string, msg Message) error {
	if err := m.post(ctx, peer, &msg, nil); err != nil {
		return &PeerError{Op: "send", Peer: peer, RequestID: msg.RequestID, Err: err}
	}
	return nil
}

// Broadcast gives a message to every peer whose link is live. Peers that keep
// up get it at once; it waits, under ctx, for the congested ones. The peers not
// reached are in a *BroadcastError. With no peers it returns nil.
func (m *Mesh) Broadcast(ctx context.Context, msg Message) error {
	buf := m.buffer()
	defer m.buffers.Put(buf)
	raw, err := msg.encode(buf, m.limits)
	if err != nil {
		return fmt.Errorf("mesh: broadcast: %w", err)
	}
	ready, paused, err := m.broadcast(ctx, raw)
	var failed []*PeerError
	if err != nil {
		for _, id := range ready {
			failed = append(failed, &PeerError{Op: "broadcast", Peer: id, Err: err})
		}
	}
	failed = append(failed, m.postAll(ctx, paused, raw)...)
	switch {
	case len(failed) > 0:
	case err != nil:
		return fmt.Errorf("mesh: broadcast: %w", err)
	default:
		return nil
	}
	slices.SortFunc(failed, func(a, b *PeerError) int { return cmp.Compare(a.Peer, b.Peer) })
	return &BroadcastError{Failed: failed}
}

// broadcast writes one line for the peers that keep up, and returns them and the
// others. The line names the others: sidecar and agent may differ for a moment
// on who is paused, and nobody shall get a message twice or never.
func (m *Mesh) broadcast(ctx context.Context, raw []byte) (ready, paused []string, err error) {
	if err := m.turn(ctx, m.audience); err != nil {
		_, ready, paused = m.split()
		return ready, paused, err
	}
	defer func() { <-m.audience }()
	for {
		s, ready, paused := m.split()
		switch {
		case m.ctx.Err() != nil:
			return ready, nil, m.closedError()
		case len(ready) == 0:
			return nil, paused, nil
		case s.maxMessage > 0 && len(raw) > s.maxMessage:
			return append(ready, paused...), nil, s.tooLarge(raw)
		}
		room, err := s.link.tryWrite(func(b []byte) []byte { return wire.AppendBroadcast(b, raw, paused) })
		if err == nil && room != nil {
			err = s.link.waitRoom(ctx, room)
		}
		if err != nil || room == nil {
			return ready, paused, err
		}
	}
}

// split tells the live peers that keep up from those that do not.
func (m *Mesh) split() (s *session, ready, paused []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, p := range m.peers {
		switch {
		case !p.live:
		case p.stop == stopNothing && m.current != nil:
			ready = append(ready, id)
		default:
			paused = append(paused, id)
		}
	}
	return m.current, ready, paused
}

// turn takes a place of which there is one, under ctx.
func (m *Mesh) turn(ctx context.Context, place chan struct{}) error {
	select {
	case place <- struct{}{}:
		return nil
	default:
	}
	select {
	case place <- struct{}{}:
		return nil
	case <-m.ctx.Done():
		return m.closedError()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// postAll waits for congested peers side by side.
func (m *Mesh) postAll(ctx context.Context, peers []string, raw []byte) []*PeerError {
	errs := make([]error, len(peers))
	var wg sync.WaitGroup
	for i, id := range peers {
		wg.Go(func() { errs[i] = m.postRaw(ctx, id, raw, nil) })
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

// post encodes a message and gives it to the sidecar as soon as the peer takes
// it. replied makes it a reply; it is called as the line is added, before anybody
// can see that, with the link's lock held.
func (m *Mesh) post(ctx context.Context, peer string, msg *Message, replied func()) error {
	if peer == "" {
		return fmt.Errorf("%w: the peer id is empty", ErrInvalid)
	}
	buf := m.buffer()
	defer m.buffers.Put(buf)
	raw, err := msg.encode(buf, m.limits)
	if err != nil {
		return err
	}
	return m.postRaw(ctx, peer, raw, replied)
}

// buffer returns one from m.buffers, where it belongs as soon as the message in
// it has been copied onto the link.
func (m *Mesh) buffer() *[]byte {
	if buf, ok := m.buffers.Get().(*[]byte); ok {
		return buf
	}
	return new([]byte)
}

func (m *Mesh) postRaw(ctx context.Context, peer string, raw []byte, replied func()) error {
	reply := replied != nil
	place, err := m.queueUp(ctx, peer, reply)
	if err != nil {
		return err
	}
	if place != nil {
		defer func() { <-place }()
	}
	for {
		s, err := m.await(ctx, peer, reply)
		if err != nil {
			return err
		}
		if s.maxMessage > 0 && len(raw) > s.maxMessage {
			return s.tooLarge(raw)
		}
		room, err := s.link.tryWrite(func(b []byte) []byte {
			if reply {
				replied()
			}
			return wire.AppendSend(b, peer, raw)
		})
		if err != nil || room == nil {
			return err
		}
		if err := s.link.waitRoom(ctx, room); err != nil {
			return err
		}
	}
}

func (s *session) tooLarge(raw []byte) error {
	return fmt.Errorf("%w: %d bytes, and the sidecar takes %d", ErrTooLarge, len(raw), s.maxMessage)
}

// queueUp waits for the caller's turn to write to a peer. It returns the place
// that the caller has then taken.
func (m *Mesh) queueUp(ctx context.Context, id string, reply bool) (place chan struct{}, err error) {
	m.mu.Lock()
	p := m.peers[id]
	m.mu.Unlock()
	if p == nil {
		return nil, nil // await tells why
	}
	place = p.work
	if reply {
		place = p.replies
	}
	return place, m.turn(ctx, place)
}

// await waits until the peer takes new work, or a reply, and returns the
// session to write to. Replies pass a peer that is busy: it waits for them.
func (m *Mesh) await(ctx context.Context, id string, reply bool) (*session, error) {
	missing := ErrUnknownPeer
	for {
		s, changed, err := m.taker(id, reply)
		if s != nil && ctx.Err() != nil {
			// The peer takes it, but has come back since: a reply to what it asked
			// on its last link could pass for one to what it asks on this one.
			return nil, context.Cause(ctx)
		}
		if s != nil {
			return s, nil
		}
		if errors.Is(err, ErrUnknownPeer) {
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

// taker returns the session to write to, or what is closed when that may be
// possible, or why it never will.
func (m *Mesh) taker(id string, reply bool) (s *session, changed <-chan struct{}, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.peers[id]
	switch {
	case m.ctx.Err() != nil:
		return nil, nil, m.closedError()
	case (p == nil || !p.live) && m.current == nil:
		return nil, nil, ErrSidecarLost
	case p == nil || !p.live:
		return nil, nil, ErrUnknownPeer
	case m.current == nil: // its session is just beginning, or ending
	case p.stop == stopNothing || reply && p.stop == stopNewWork:
		return m.current, nil, nil
	}
	return nil, p.changed, nil
}
