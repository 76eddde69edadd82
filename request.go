package mesh

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// Request sends a message and waits for its response. Without a deadline in
// ctx it waits Config.RequestTimeout. It ends at once when the peer goes
// (ErrPeerGone), the sidecar is lost (ErrSidecarLost), the message cannot be
// sent, or the mesh closes (ErrClosed); an error that the peer's handler
// returned is a *RemoteError. All are wrapped in a *PeerError. When the caller
// gives up, the context of the peer's handler ends. A request that failed may
// have been carried out all the same.
func (m *Mesh) Request(ctx context.Context, peer string, msg Message) (*Message, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, m.cfg.RequestTimeout)
		defer cancel()
	}
	if msg.RequestID == "" {
		msg.RequestID = m.ids.next()
	}
	reply, err := m.request(ctx, peer, &msg)
	if err != nil {
		return nil, &PeerError{Op: "request", Peer: peer, RequestID: msg.RequestID, Err: err}
	}
	return reply, nil
}

func (m *Mesh) request(ctx context.Context, peer string, msg *Message) (*Message, error) {
	call, err := m.calls.add(peer, msg.RequestID)
	if err != nil {
		return nil, err
	}
	if err := m.post(ctx, peer, msg, nil); err != nil {
		m.calls.drop(call)
		return nil, err
	}
	var r result
	select {
	case r = <-call.done:
	case <-ctx.Done():
		if m.calls.drop(call) {
			m.sendCancel(peer, msg.RequestID)
			return nil, context.Cause(ctx)
		}
		r = <-call.done
	}
	if r.err != nil {
		return nil, r.err
	}
	if text := r.reply.failure(); text != "" {
		return nil, &RemoteError{Text: text, Reply: r.reply}
	}
	return r.reply, nil
}

// requestIDs draws ids of 12 hex digits: what agents in other languages draw, and
// not to be guessed by a peer. It asks the system for many at a time, which takes
// no longer than for one.
type requestIDs struct {
	mu     sync.Mutex
	random [64 * 6]byte
	left   []byte // of random
}

func (r *requestIDs) next() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.left) == 0 {
		_, _ = rand.Read(r.random[:]) // never fails, as documented
		r.left = r.random[:]
	}
	id := hex.EncodeToString(r.left[:6])
	r.left = r.left[6:]
	return id
}

func (m *Mesh) sendCancel(peer, id string) {
	s := m.session()
	if s == nil || !s.has(wire.FeatureCancel) {
		return
	}
	// An error means that the link is gone, and the request with it.
	_ = s.link.writeNow(nil, func(b []byte) []byte { return wire.AppendCancelCommand(b, peer, id) })
}
