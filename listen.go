package mesh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// defaultBacklog is ListenConfig.Backlog if that is 0.
	defaultBacklog = 128
	// takeTimeout bounds how long a stream that was offered takes to be taken.
	takeTimeout = 10 * time.Second
)

// ListenConfig has settings of a listener. The zero value accepts every peer.
type ListenConfig struct {
	// Allow reports whether a peer may open streams; nil means every one. Others are
	// refused with ErrStreamRefused. It is called for each stream, in a goroutine of its
	// own; after 10 s the stream is refused. Peer.Key is what to go by: see
	// Config.Identity.
	Allow func(Peer) bool
	// Backlog is how many streams may wait for Accept; further ones are refused with
	// ErrTooManyStreams. Default 128.
	Backlog int
}

// Listen listens for streams of peers to a service: a name of 1 to 255 bytes without
// spaces and colons, such as "http" or "mcp/files". When it returns, peers can open
// streams. The connections are *Conn, and their RemoteAddr is the peer. The listener
// outlasts its sidecar. The error wraps ErrInvalid, ErrDuplicateService or the reason
// for which the mesh ended.
func (m *Mesh) Listen(service string) (net.Listener, error) {
	return ListenConfig{}.Listen(m, service)
}

// Listen is Mesh.Listen with these settings.
func (cfg ListenConfig) Listen(m *Mesh, service string) (net.Listener, error) {
	l, c, err := cfg.listen(m, service)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "mesh", Addr: Addr{Service: service}, Err: err}
	}
	if c != nil {
		select {
		case <-l.known:
		case <-c.ended: // the next sidecar is told, too
		case <-m.ctx.Done():
		}
	}
	return l, nil
}

// listen makes a listener, of which the sidecar of c was told; of none if there is none.
func (cfg ListenConfig) listen(m *Mesh, service string) (l *listener, c *ipc, err error) {
	if err := wire.CheckService(service); err != nil {
		return nil, nil, fmt.Errorf("%w: %s", ErrInvalid, wire.BadLine(err).Text)
	}
	if cfg.Backlog <= 0 {
		cfg.Backlog = defaultBacklog
	}
	l = &listener{
		m: m, service: service, cfg: cfg,
		known: make(chan struct{}), queue: make(chan *Conn, cfg.Backlog), done: make(chan struct{}),
	}
	m.listen.Lock()
	defer m.listen.Unlock()
	if err := m.addService(l); err != nil {
		return nil, nil, err
	}
	return l, m.tellService(wire.TypeListen, service), nil
}

func (m *Mesh) addService(l *listener) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.ctx.Err() != nil:
		return m.closedError()
	case m.services[l.service] != nil:
		return ErrDuplicateService
	case len(m.services) >= wire.MaxServices:
		return fmt.Errorf("%w: %d services have listeners, which is the limit", ErrInvalid, wire.MaxServices)
	}
	if m.services == nil {
		m.services = make(map[string]*listener)
	}
	m.services[l.service] = l
	return nil
}

// tellServices tells a new sidecar of all listeners.
func (m *Mesh) tellServices() {
	m.listen.Lock()
	defer m.listen.Unlock()
	m.mu.Lock()
	services := slices.Collect(maps.Keys(m.services))
	m.mu.Unlock()
	for _, service := range services {
		m.tellService(wire.TypeListen, service)
	}
}

// tellService tells the sidecar of a listener, with listen held, and returns its link, nil if it was not told.
func (m *Mesh) tellService(t wire.Type, service string) *ipc {
	c := m.ipc()
	if c == nil || !c.has(wire.FeatureStreams) ||
		c.writeNow(func(b []byte) []byte { return wire.AppendStream(b, t, wire.Stream{Service: service}) }) != nil {
		return nil
	}
	return c
}

// listening notes that the sidecar knows of a listener.
func (m *Mesh) listening(service string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.services[service]; l != nil {
		l.knownOnce.Do(func() { close(l.known) })
	}
}

// A listener is a net.Listener.
type listener struct {
	m       *Mesh
	service string
	cfg     ListenConfig
	known   chan struct{} // closed when the sidecar knows of it
	queue   chan *Conn
	done    chan struct{} // closed by Close
	once    sync.Once

	knownOnce sync.Once

	mu       sync.Mutex
	reserved int // places in the queue
	closed   bool
}

// Accept returns the next stream. After Close, or the end of the mesh, its error wraps net.ErrClosed.
func (l *listener) Accept() (net.Conn, error) {
	var why error = net.ErrClosed
	select {
	case c := <-l.queue:
		l.leave()
		return c, nil
	case <-l.done:
	case <-l.m.ctx.Done():
		why = fmt.Errorf("%w: %w", l.m.closedError(), net.ErrClosed)
	}
	return nil, &net.OpError{Op: "accept", Net: "mesh", Source: l.Addr(), Err: why}
}

// Addr returns an Addr.
func (l *listener) Addr() net.Addr { return Addr{l.m.Signaling().PeerID, l.service} }

// Close ends the listener and resets the streams that wait for Accept.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.end()
		close(l.done)
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
		for {
			select {
			case c := <-l.queue:
				c.Reset() // nobody has served it
			default:
				return
			}
		}
	})
	return nil
}

func (l *listener) end() {
	l.m.listen.Lock()
	defer l.m.listen.Unlock()
	l.m.mu.Lock()
	delete(l.m.services, l.service)
	l.m.mu.Unlock()
	l.m.tellService(wire.TypeUnlisten, l.service)
}

// enter reserves a place in the queue, unless it is full.
func (l *listener) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reserved == cap(l.queue) {
		return false
	}
	l.reserved++
	return true
}

func (l *listener) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reserved--
}

// add passes a stream to Accept, in a place that was reserved.
func (l *listener) add(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		l.reserved--
		c.Reset()
		return
	}
	l.queue <- c
}

// offered handles a stream of a peer that the sidecar has.
func (c *ipc) offered(w wire.Stream) {
	m := c.m
	m.mu.Lock()
	l := m.services[w.Service]
	m.mu.Unlock()
	peer, live := m.livePeer(w.PeerID)
	switch {
	case l == nil || !live:
		c.refuse(w, wire.CodeNoService)
	case !l.enter():
		c.refuse(w, wire.CodeTooManyStreams)
	default:
		m.handlers.run(func() { c.accept(l, peer, w) })
	}
}

// accept takes a stream for a listener, if that allows it.
func (c *ipc) accept(l *listener, peer Peer, w wire.Stream) {
	allowed := l.cfg.Allow == nil
	if !allowed {
		c.m.guard(func() { allowed = l.cfg.Allow(peer) })
	}
	if !allowed {
		l.leave()
		c.refuse(w, wire.CodeRefused)
		return
	}
	ctx, cancel := context.WithTimeout(c.m.ctx, takeTimeout)
	defer cancel()
	s, err := c.stream(ctx, wire.Stream{Stream: w.Stream})
	if err != nil { // it is gone
		l.leave()
		if !errors.Is(err, context.Canceled) {
			c.m.outside.Debug(peer.ID).Err(err).Str("peer", peer.ID).Msg("stream not taken")
		}
		return
	}
	own := Addr{c.m.Signaling().PeerID, w.Service}
	l.add(&Conn{ipc: c, s: s, local: own, remote: Addr{peer.ID, w.Service}, peer: peer})
}

func (c *ipc) refuse(w wire.Stream, code wire.Code) {
	// An error means that the link is gone, and the stream with it.
	_ = c.writeNow(func(b []byte) []byte {
		return wire.AppendStream(b, wire.TypeRefuse, wire.Stream{Stream: w.Stream, Code: code})
	})
}
