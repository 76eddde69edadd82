package mesh

import (
	"cmp"
	"context"
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
	if err := m.post(ctx, peer, &msg, false); err != nil {
		return &PeerError{Op: "send", Peer: peer, RequestID: msg.RequestID, Err: err}
	}
	return nil
}

// Broadcast gives a message to every peer whose link is live. Peers that keep
// up get it at once; it waits, under ctx, for the congested ones. The peers not
// reached are in a *BroadcastError. With no peers it returns nil.
func (m *Mesh) Broadcast(ctx context.Context, msg Message) error {
	raw, err := msg.encode(m.limits)
	if err != nil {
		return fmt.Errorf("mesh: broadcast: %w", err)
	}
	s, ready, paused, err := m.audience()
	if err != nil {
		return fmt.Errorf("mesh: broadcast: %w", err)
	}
	var failed []*PeerError
	if len(ready) > 0 {
		// The line names the peers to leave out: sidecar and agent may differ
		// for a moment on who is paused, and nobody shall get it twice or never.
		err := s.link.write(ctx, func(b []byte) []byte { return wire.AppendBroadcast(b, raw, paused) })
		for _, id := range ready {
			if err != nil {
				failed = append(failed, &PeerError{Op: "broadcast", Peer: id, Err: err})
			}
		}
	}
	failed = append(failed, m.postAll(ctx, paused, raw)...)
	if len(failed) == 0 {
		return nil
	}
	slices.SortFunc(failed, func(a, b *PeerError) int { return cmp.Compare(a.Peer, b.Peer) })
	return &BroadcastError{Failed: failed}
}

// audience splits the live peers into those that keep up and those that are
// congested.
func (m *Mesh) audience() (s *session, ready, paused []string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return nil, nil, nil, m.closedError()
	}
	for id, p := range m.peers {
		switch {
		case !p.live:
		case p.stop == stopNothing && m.current != nil:
			ready = append(ready, id)
		default:
			paused = append(paused, id)
		}
	}
	return m.current, ready, paused, nil
}

// postAll waits for congested peers side by side.
func (m *Mesh) postAll(ctx context.Context, peers []string, raw []byte) []*PeerError {
	errs := make([]error, len(peers))
	var wg sync.WaitGroup
	for i, id := range peers {
		wg.Go(func() { errs[i] = m.postRaw(ctx, id, raw, false) })
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
func (m *Mesh) post(ctx context.Context, peer string, msg *Message, reply bool) error {
	if peer == "" {
		return fmt.Errorf("%w: the peer id is empty", ErrInvalid)
	}
	raw, err := msg.encode(m.limits)
	if err != nil {
		return err
	}
	return m.postRaw(ctx, peer, raw, reply)
}

func (m *Mesh) postRaw(ctx context.Context, peer string, raw []byte, reply bool) error {
	s, err := m.await(ctx, peer, reply)
	if err != nil {
		return err
	}
	if s.maxMessage > 0 && len(raw) > s.maxMessage {
		return fmt.Errorf("%w: %d bytes, and the sidecar takes %d", ErrTooLarge, len(raw), s.maxMessage)
	}
	return s.link.write(ctx, func(b []byte) []byte { return wire.AppendSend(b, peer, raw) })
}

// await waits until the peer takes new work, or a reply, and returns the
// session to write to. Replies pass a peer that is busy: it waits for them.
func (m *Mesh) await(ctx context.Context, id string, reply bool) (*session, error) {
	missing := ErrUnknownPeer
	for {
		m.mu.Lock()
		p := m.peers[id]
		switch {
		case m.ctx.Err() != nil:
			defer m.mu.Unlock()
			return nil, m.closedError()
		case p == nil || !p.live:
			defer m.mu.Unlock()
			if m.current == nil {
				return nil, ErrSidecarLost
			}
			return nil, missing
		case m.current == nil: // its session is just beginning, or ending
		case p.stop == stopNothing || reply && p.stop == stopNewWork:
			defer m.mu.Unlock()
			return m.current, nil
		}
		changed := p.changed
		m.mu.Unlock()
		missing = ErrPeerGone
		select {
		case <-changed:
		case <-m.ctx.Done():
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
