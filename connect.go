package mesh

import (
	"context"
	"fmt"
	"slices"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// A waiter waits for a peer's link, in Connect or WaitPeer.
type waiter struct {
	connect bool       // fails with the sidecar's answer to connect
	done    chan error // buffered 1
}

// end gives the waiter its result, unless it has one: it may have failed before
// and be about to leave. It never waits, since who takes the link's lines calls it.
func (w *waiter) end(err error) {
	select {
	case w.done <- err:
	default:
	}
}

// Connect asks for a link to a peer now, and waits until it is live. A peer
// that the signaling server does not know fails at once with ErrUnknownPeer.
// Agents on the mesh connect to each other by themselves; Connect is for
// making sure, and for not waiting until the next attempt.
func (m *Mesh) Connect(ctx context.Context, peer string) error {
	if err := m.waitLink(ctx, peer, true); err != nil {
		return &PeerError{Op: "connect", Peer: peer, Err: err}
	}
	return nil
}

// WaitPeer waits until the link to a peer is live, however long that peer takes
// to appear.
func (m *Mesh) WaitPeer(ctx context.Context, peer string) error {
	if err := m.waitLink(ctx, peer, false); err != nil {
		return &PeerError{Op: "wait", Peer: peer, Err: err}
	}
	return nil
}

var errOneself = fmt.Errorf("%w: that is this agent itself", ErrInvalid)

func (m *Mesh) waitLink(ctx context.Context, id string, connect bool) error {
	if id == "" {
		return fmt.Errorf("%w: the peer id is empty", ErrInvalid)
	}
	w := &waiter{connect: connect, done: make(chan error, 1)}
	m.mu.Lock()
	s, p := m.current, m.peers[id]
	var err error
	switch {
	case m.ctx.Err() != nil:
		err = m.closedError()
	case id == m.signaling.PeerID:
		err = errOneself
	case p != nil && p.live:
		m.mu.Unlock()
		return nil
	case connect && s == nil:
		err = ErrSidecarLost
	default:
		m.waiters[id] = append(m.waiters[id], w)
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	defer m.forget(id, w)
	if connect {
		if _, ok := ctx.Deadline(); !ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, m.cfg.RequestTimeout)
			defer cancel()
		}
		if err := s.link.write(ctx, func(b []byte) []byte { return wire.AppendConnect(b, id) }); err != nil {
			return err
		}
	}
	select {
	case err := <-w.done:
		return err
	case <-m.ctx.Done():
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.closedError()
	case <-ctx.Done():
		return m.withSignaling(context.Cause(ctx))
	}
}

// withSignaling adds to an error of waiting what keeps peers from being found.
func (m *Mesh) withSignaling(err error) error {
	if st := m.Signaling(); st.State != SignalingConnected && st.Err != nil {
		return fmt.Errorf("%w; signaling is %s: %w", err, st.State, st.Err)
	}
	return err
}

func (m *Mesh) forget(id string, w *waiter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiters[id] = slices.DeleteFunc(m.waiters[id], func(x *waiter) bool { return x == w })
	if len(m.waiters[id]) == 0 {
		delete(m.waiters, id)
	}
}
