package mesh

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh/internal/relief"
)

// Request sends a message and blocks until its response arrives, under ctx or for
// Config.RequestTimeout if that has no deadline. It ends at once when the peer
// goes (ErrPeerGone), the sidecar is lost (ErrSidecarLost), the message cannot be
// sent, or the mesh closes (ErrClosed); an error with which the peer responds
// is a *RemoteError. All are wrapped in a *PeerError. When ctx ends, so does the
// context of the peer's handler, which has its deadline. A request that failed may have been carried out
// all the same.
func (m *Mesh) Request(ctx context.Context, peer string, msg Message) (*Message, error) {
	if f := m.wrappers.call; f != nil {
		return f(ctx, peer, msg)
	}
	return m.request(ctx, peer, msg)
}

func (m *Mesh) request(ctx context.Context, peer string, msg Message) (*Message, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, m.cfg.RequestTimeout)
		defer cancel()
	}
	deadline, _ := ctx.Deadline()
	msg.timeout = max(time.Until(deadline), 1)
	if msg.RequestID == "" {
		msg.RequestID = m.ids.next()
	}
	reply, sent, err := m.ask(ctx, peer, &msg)
	if err != nil {
		return nil, &PeerError{Op: "request", Peer: peer, RequestID: msg.RequestID, Err: err, unsent: !sent}
	}
	return reply, nil
}

// ask makes a request, and reports whether it was sent.
func (m *Mesh) ask(ctx context.Context, peer string, msg *Message) (reply *Message, sent bool, err error) {
	call, err := m.calls.add(peer, msg.RequestID, nil)
	if err != nil {
		return nil, false, err
	}
	if err := m.post(ctx, peer, msg); err != nil {
		m.calls.drop(call)
		return nil, false, err
	}
	m.attend(ctx, call)
	var r result
	select {
	case r = <-call.done:
	case <-ctx.Done():
		if m.calls.drop(call) {
			m.sendCancel(peer, msg.RequestID)
			return nil, true, context.Cause(ctx)
		}
		r = <-call.done
	}
	if r.err == nil {
		r.err = r.reply.failure()
	}
	return r.reply, true, r.err
}

// attend has the caller read what the peer sends until the call has ended, where it
// can: in the process of the sidecar, from a peer on the same host.
func (m *Mesh) attend(ctx context.Context, call *call) {
	if c := m.ipc(); c != nil && c.side.door != nil {
		c.side.door.Attend(ctx, call.key.peer, &call.guest)
	}
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

// calls are the requests whose response is pending: pure bookkeeping, without
// goroutines, clocks or I/O. A call ends exactly once, by what happens first: its
// response, its caller's giving up, or the end of its peer or of the sidecar.
type calls struct {
	mu      sync.Mutex
	pending map[callKey]*call
	ended   error // set once by end: no further calls
}

// A request id is unique towards one peer. The peer is part of the key, so a
// response counts only when it comes from the peer that was asked.
type callKey struct{ peer, id string }

type call struct {
	key    callKey
	done   chan result // buffered 1, sent to exactly once
	chunks *chunkQueue // nil if the response alone is wanted
	guest  relief.Guest
}

func (c *call) end(r result) {
	c.done <- r
	c.guest.Leave()
}

type result struct {
	reply *Message
	err   error
}

// add registers a call, which wants chunks unless the queue for them is nil. It must happen before the request is written: a
// response may arrive before the write returns.
func (c *calls) add(peer, id string, chunks *chunkQueue) (*call, error) {
	k := callKey{peer, id}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return nil, c.ended
	}
	if c.pending[k] != nil {
		return nil, ErrDuplicateRequest
	}
	if c.pending == nil {
		c.pending = make(map[callKey]*call)
	}
	p := &call{key: k, done: make(chan result, 1), chunks: chunks, guest: relief.Guest{For: id}}
	c.pending[k] = p
	return p, nil
}

// take takes the call to one peer with an id, for its response; nil if there is none.
func (c *calls) take(peer string, id []byte) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pending[callKey{peer, string(id)}]
	if p != nil {
		delete(c.pending, p.key)
	}
	return p
}

// find returns the call to one peer with an id; nil if there is none.
func (c *calls) find(peer string, id []byte) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pending[callKey{peer, string(id)}]
}

// perPeer returns how many calls to each peer are pending.
func (c *calls) perPeer() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := make(map[string]int)
	for k := range c.pending {
		n[k.peer]++
	}
	return n
}

// fail ends one call with an error, and reports whether it was still pending.
func (c *calls) fail(peer, id string, err error) bool {
	p := c.take(peer, []byte(id))
	if p != nil {
		p.end(result{err: err})
	}
	return p != nil
}

// drop forgets a call whose caller gave up, and reports whether it was still
// pending; if not, its result is in done, or about to be.
func (c *calls) drop(p *call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending[p.key] != p {
		return false
	}
	delete(c.pending, p.key)
	return true
}

// failPeer ends every call to one peer.
func (c *calls) failPeer(peer string, err error) {
	c.failIf(func(k callKey) bool { return k.peer == peer }, err)
}

// failAll ends every call; later ones may follow.
func (c *calls) failAll(err error) {
	c.failIf(func(callKey) bool { return true }, err)
}

func (c *calls) failIf(match func(callKey) bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, p := range c.pending {
		if match(k) {
			delete(c.pending, k)
			p.end(result{err: err})
		}
	}
}

// end fails every call, and has add refuse all later ones.
func (c *calls) end(err error) {
	c.mu.Lock()
	c.ended = err
	c.mu.Unlock()
	c.failAll(err)
}
