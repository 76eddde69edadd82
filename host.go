package mesh

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/sock"
)

const (
	// peekTime is how long a new connection may say nothing before it counts as
	// an agent. Whoever only tests whether somebody listens hangs up at once and
	// must not keep the agent out meanwhile.
	peekTime = 50 * time.Millisecond
	// probeTime is how old a connection over which nothing has passed may be at
	// its end to count as such a test nevertheless.
	probeTime = time.Second
	// acceptPause is the wait after a failed accept, such as for lack of file
	// descriptors.
	acceptPause = 100 * time.Millisecond
)

var errNoAgent = errors.New("mesh: no agent connected to the sidecar in time")

// A host serves the sidecar to one agent on a socket.
type host struct {
	listener net.Listener
	set      settings
	log      zerolog.Logger
	patience time.Duration   // how long to wait for the agent; 0 means for ever
	orphaned <-chan struct{} // closed when whoever would connect is gone; may be nil
}

// run serves the first agent, and returns nil when it is gone or ctx ends. It
// closes the listener.
func (h *host) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	callers := make(chan *caller)
	var accepting sync.WaitGroup
	accepting.Go(func() { h.accept(ctx, callers) })
	defer func() {
		cancel()
		_ = h.listener.Close()
		accepting.Wait()
	}()

	var late <-chan time.Time
	if h.patience > 0 {
		timer := time.NewTimer(h.patience)
		defer timer.Stop()
		late = timer.C
	}
	var agent *caller     // the one being served
	var served chan error // its end
	orphaned := h.orphaned
	overdue := false
	for {
		select {
		case c := <-callers:
			if agent != nil {
				h.log.Warn().Msg("a second agent was refused: this sidecar serves one")
				_ = c.Close()
				continue
			}
			end := make(chan error, 1)
			agent, served = c, end
			go func() { end <- serveSidecar(ctx, newLink(c, h.set.limits()), h.set, h.log) }()
		case err := <-served:
			if !agent.wasNone(err) {
				return endOf(ctx, err)
			}
			h.log.Debug().Err(err).Msg("a connection ended that was no agent")
			agent, served = nil, nil
		case <-late:
			overdue = true
		case <-orphaned:
			orphaned, overdue = nil, true
		case <-ctx.Done():
			if agent == nil {
				return nil
			}
			return endOf(ctx, <-served)
		}
		if overdue && agent == nil {
			return errNoAgent
		}
	}
}

// endOf is how serving an agent ended: an end that was asked for is no error.
func endOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// accept hands over the connections of this user's processes.
func (h *host) accept(ctx context.Context, callers chan<- *caller) {
	for {
		conn, err := h.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			h.log.Error().Err(err).Msg("accepting an agent")
			waitUntil(ctx, nil, acceptPause)
			continue
		}
		if err := sock.CheckPeer(conn); err != nil {
			h.log.Warn().Err(err).Msg("a connection was refused")
			_ = conn.Close()
			continue
		}
		c := &caller{Conn: conn, direct: sock.NewDirect(conn), since: time.Now()}
		if c.hungUp() {
			_ = conn.Close()
			continue
		}
		select {
		case callers <- c:
		case <-ctx.Done():
			_ = conn.Close()
			return
		}
	}
}

// A caller is a connection that knows whether anything passed over it.
type caller struct {
	net.Conn
	direct *sock.Direct // nil if it has no file descriptor
	since  time.Time
	peeked []byte // read already, to be read again
	used   atomic.Bool
}

// hungUp waits for the caller's first byte, though not for long, and reports
// whether its end came instead.
func (c *caller) hungUp() bool {
	var b [1]byte
	if err := c.SetReadDeadline(time.Now().Add(peekTime)); err != nil {
		return true
	}
	n, err := c.read(b[:])
	c.used.Store(n > 0)
	c.peeked = append(c.peeked, b[:n]...)
	var timeout net.Error
	if err != nil && !(errors.As(err, &timeout) && timeout.Timeout()) {
		return true
	}
	return c.SetReadDeadline(time.Time{}) != nil
}

// Read is for one goroutine at a time.
func (c *caller) Read(b []byte) (int, error) {
	if len(c.peeked) > 0 {
		n := copy(b, c.peeked)
		c.peeked = c.peeked[n:]
		return n, nil
	}
	n, err := c.read(b)
	if n > 0 {
		c.used.Store(true)
	}
	return n, err
}

func (c *caller) read(b []byte) (int, error) {
	if c.direct == nil {
		return c.Conn.Read(b)
	}
	return c.direct.Read(b)
}

// Write makes a silent listener an agent: it was told something.
func (c *caller) Write(b []byte) (int, error) {
	c.used.Store(true)
	return c.Conn.Write(b)
}

// tryWrite is TryWrite of a caller that has a direct.
func (c *caller) tryWrite(b []byte) int {
	c.used.Store(true)
	return c.direct.TryWrite(b)
}

// wasNone tells that a connection which ended with err was not the agent.
func (c *caller) wasNone(err error) bool {
	return errors.Is(err, errUnauthorized) || err == nil && !c.used.Load() && time.Since(c.since) < probeTime
}
