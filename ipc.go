package mesh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chatixia-ai/mesh/internal/link"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// An ipc is the agent's end of the link to one sidecar, from the hello to the end
// of the connection. A sidecar that is started anew has a new one.
type ipc struct {
	m    *Mesh
	link *link.Link
	side *launched

	limits wire.Limits // of lines that arrive

	ready     chan struct{} // closed once it is known what the sidecar can do
	drained   chan struct{} // closed when the sidecar said drained
	replaced  chan struct{} // closed when the sidecar said that this agent was replaced
	ended     chan struct{} // closed when the reader has stopped
	readErr   error         // valid after ended
	successor error         // valid after replaced: ErrReplaced or ErrIDInUse
	features  []string      // valid after ready
	secret    string        // for streams; valid after ready
	// maxMessage is the sidecar's limit in bytes, 0 if it named none; valid after
	// ready.
	maxMessage int
	refused    error         // valid after ended: the sidecar's reason to end
	unsent     wire.Unsent   // valid after drained
	used       atomic.Bool   // a message was accepted
	hung       atomic.Bool   // the link was ended because the sidecar hangs
	pong       chan struct{} // buffered 1: the sidecar has responded to a ping
	window     window        // if the sidecar knows ping
	windowed   bool          // it does; valid after ready
	stats      statsQueue
	dropped    int    // messages that the sidecar has dropped, as it has said last; guarded by Mesh.mu
	card       []byte // that the sidecar was told last; guarded by Mesh.own.mu after the hello

	// Of take alone.
	trusted bool // peers and their messages are taken from this sidecar
	unfit   bool // the sidecar does not demand of peers what it should
	line    wire.Line
	types   typeName // of messages

	readyOnce, drainedOnce, replacedOnce sync.Once

	streamsMu sync.Mutex
	streams   map[string]*socketStream // whose end the sidecar has not told, by their ids
}

// openIPC says hello and blocks until the sidecar has responded. Right behind the
// hello it asks for the peers: a sidecar that responds only to that is a base one.
// No clock decides it.
func openIPC(ctx context.Context, m *Mesh, side *launched) (*ipc, error) {
	c := &ipc{
		m: m, side: side, link: side.link, limits: side.link.Limits(m.limits),
		ready: make(chan struct{}), drained: make(chan struct{}),
		replaced: make(chan struct{}), ended: make(chan struct{}), pong: make(chan struct{}, 1),
		trusted: m.settings.Identity.Demand() == "", streams: make(map[string]*socketStream), card: m.cardText(),
	}
	m.work.Go(c.link.Run)
	m.work.Go(c.read)
	err := c.write(ctx, func(b []byte) []byte {
		b = wire.AppendHello(b, wire.Hello{Protocol: wire.ProtocolVersion, Features: wire.Features(), MaxMessage: m.limits.MaxMessage, Token: side.token, Card: c.card})
		return wire.AppendListPeers(b)
	})
	if err == nil || errors.Is(err, ErrSidecarLost) { // if lost, the reader knows why
		select {
		case <-c.ready:
			if l := side.liveness; l.ticks > 0 && c.has(wire.FeaturePing) {
				m.work.Go(func() { c.watch(l) })
			}
			return c, nil
		case <-c.ended:
			err = c.endError()
		case <-ctx.Done():
			err = fmt.Errorf("no response to hello: %w", context.Cause(ctx))
		}
	}
	c.link.Close()
	<-c.ended
	m.loseAll(c) // a base sidecar may have told of peers
	return nil, err
}

// isReady reports whether it is known what the sidecar can do.
func (c *ipc) isReady() bool {
	select {
	case <-c.ready:
		return true
	default:
		return false
	}
}

// has reports whether the sidecar knows an extension; false before ready.
func (c *ipc) has(feature string) bool {
	return c.isReady() && slices.Contains(c.features, feature)
}

// wasReplaced reports whether the sidecar said that this agent was replaced.
func (c *ipc) wasReplaced() bool {
	select {
	case <-c.replaced:
		return true
	default:
		return false
	}
}

// endError returns why the link ended; valid after ended.
func (c *ipc) endError() error {
	if c.refused != nil {
		return c.refused
	}
	if c.hung.Load() {
		return ErrSidecarHung
	}
	if c.readErr == nil {
		return errors.New("the sidecar closed the connection")
	}
	return fmt.Errorf("connection to the sidecar: %w", c.readErr)
}

// gone returns why a link that has ended, or is about to, serves nobody any more.
func (c *ipc) gone() error {
	if c.m.ctx.Err() != nil {
		return c.m.closedError()
	}
	return ErrSidecarLost
}

// Commands out. Their errors are ErrSidecarLost or the cause of ctx.

// write adds lines. It blocks, under ctx, while the link's queue is full.
func (c *ipc) write(ctx context.Context, add func([]byte) []byte) error {
	return lost(c.link.Write(ctx, add))
}

// tryWrite adds a message, or returns a channel that is closed when there may be room
// for it.
func (c *ipc) tryWrite(add func([]byte) []byte) (room <-chan struct{}, err error) {
	if !c.windowed {
		room, err = c.link.TryWrite(add)
		return room, lost(err)
	}
	if room := c.window.full(); room != nil {
		return room, nil
	}
	room, err = c.link.TryWrite(func(b []byte) []byte { return c.window.message(b, add) })
	return room, lost(err)
}

// waitRoom blocks until room is closed, or the link or ctx ends. Only the end of
// ctx is an error: for that of the link the next write has one.
func (c *ipc) waitRoom(ctx context.Context, room <-chan struct{}) error {
	return c.link.WaitRoom(ctx, room)
}

// writeNow adds lines without ever blocking.
func (c *ipc) writeNow(add func([]byte) []byte) error { return lost(c.link.WriteNow(nil, add)) }

// lost returns the public error for an error of the link.
func lost(err error) error {
	if errors.Is(err, link.ErrClosed) || errors.Is(err, link.ErrOverflow) {
		return ErrSidecarLost
	}
	return err
}

// pausePeer asks the sidecar to pause or resume a peer.
func (m *Mesh) pausePeer(peer string, stop wire.Stop) {
	c := m.ipc()
	if c == nil || !c.has(wire.FeatureFlow) {
		return
	}
	// An error means that the link is gone, and the pause with it.
	_ = c.writeNow(func(b []byte) []byte {
		if stop == wire.StopNothing {
			return wire.AppendResume(b, peer)
		}
		return wire.AppendPause(b, peer, stop)
	})
}

// sendCancel tells a peer that the caller of a request gave up.
func (m *Mesh) sendCancel(peer, id string) {
	c := m.ipc()
	if c == nil || !c.has(wire.FeatureCancel) || len(id) > wire.MaxCancelID {
		return
	}
	// An error means that the link is gone, and the request with it.
	_ = c.writeNow(func(b []byte) []byte { return wire.AppendCancelCommand(b, peer, id) })
}

// tooLarge returns the error for a message that is too large for the sidecar, nil
// for any other.
func (c *ipc) tooLarge(raw []byte) error {
	if c.maxMessage > 0 && len(raw) > c.maxMessage {
		return fmt.Errorf("%w: %d bytes, and the sidecar takes %d", ErrTooLarge, len(raw), c.maxMessage)
	}
	return nil
}

// close drains the link for up to limit, if the sidecar can, and ends it. The error says
// what the peers may not have. The sidecar itself is ended by the caller.
func (c *ipc) close(ctx context.Context, limit time.Duration) error {
	err := c.drain(ctx, limit)
	c.link.Close()
	<-c.ended
	if err != nil && c.used.Load() {
		return err
	}
	return nil
}

// drain blocks until everything was sent, limit is over, or the link has ended.
func (c *ipc) drain(ctx context.Context, limit time.Duration) error {
	bounded := func(d time.Duration) (context.Context, context.CancelFunc) {
		return context.WithTimeoutCause(ctx, d, fmt.Errorf("the sidecar did not respond within %v", d))
	}
	if !c.has(wire.FeatureDrain) {
		ctx, cancel := bounded(limit)
		defer cancel()
		if err := c.link.Flush(ctx); err != nil { // a base sidecar sends what it has read
			return &UnsentError{Timeout: limit, Err: lost(err)}
		}
		return nil
	}
	ctx, cancel := bounded(limit + drainGrace)
	defer cancel()
	err := c.writeNow(func(b []byte) []byte { return wire.AppendDrain(b, limit) })
	if err == nil {
		select {
		case <-c.drained:
		case <-c.ended:
			err = because(ErrSidecarLost, c.endError())
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	if err != nil {
		return &UnsentError{Timeout: limit, Err: err}
	}
	return unsentError(limit, c.unsent)
}

// begin makes an ipc the one to write to, once it is known what its sidecar
// can do. Peers may have been announced before.
func (m *Mesh) begin(c *ipc) {
	m.mu.Lock()
	m.current = c
	m.sidecars++
	for _, p := range m.peers {
		p.changeLocked()
	}
	m.mu.Unlock()
}

// ipc returns the link to the running sidecar, nil if there is none.
func (m *Mesh) ipc() *ipc {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.current
}
