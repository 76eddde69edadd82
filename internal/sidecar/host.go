package sidecar

import (
	"cmp"
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/link"
	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/sock"
)

const (
	// silentAgent is how long a connection that says nothing must have stayed to count as the agent's: base
	// agents may only listen.
	silentAgent = 10 * time.Second
	// maxCallers bounds the connections that are looked at, at a time. Further ones wait to be accepted.
	maxCallers = 64
	// acceptPause is the wait after a failed accept, such as for lack of file descriptors.
	acceptPause = 100 * time.Millisecond
	// lateGrace is how long the host of a process that stood still looks for the agent after Patience.
	lateGrace = time.Second
)

// ErrNoAgent means that no agent connected in time.
var ErrNoAgent = errors.New("no agent connected to the sidecar in time")

// A Host serves a sidecar to one agent on a socket.
type Host struct {
	Listener net.Listener
	Settings Settings
	Log      zerolog.Logger
	Patience time.Duration   // how long to wait for the agent; 0 means for ever
	Orphaned <-chan struct{} // closed when the process that would connect is gone; may be nil

	noise   zerolog.Logger // Log, sampled, for what callers can cause without end
	silence time.Duration  // silentAgent, but in tests
	heirs   time.Duration  // heirTime, but in tests
	places  chan struct{}  // semaphore: the callers that are looked at
	door    *Door          // of the agent, once it is known
}

// Run serves the first agent. It returns nil when that is gone or ctx ends, ErrNoAgent, or the error of
// Serve. It closes the listener.
//
// Agents are not the only programs that connect: health checks do, too. Nothing happens for a caller before
// it has proven to be the agent, as [caller.prove] says. Then all others are refused.
func (h *Host) Run(ctx context.Context) error {
	if h.silence == 0 {
		h.silence = silentAgent
	}
	h.heirs = cmp.Or(h.heirs, heirTime)
	h.noise = logs.Sampled(h.Log)
	h.places = make(chan struct{}, maxCallers)
	h.door = new(Door)
	ctx, stop := context.WithCancel(ctx)
	looking, stopLooking := context.WithCancel(ctx)
	agents := make(chan *caller)
	var accepting sync.WaitGroup
	accepting.Go(func() { h.accept(ctx, looking, agents) })
	defer func() {
		stopLooking()
		stop()
		_ = h.Listener.Close()
		accepting.Wait()
	}()
	c, err := h.wait(ctx, agents)
	if c == nil {
		return err
	}
	stopLooking()
	set := h.Settings
	if set.Signaling.Started.IsZero() {
		set.Signaling.Started = time.Now() // the agent's start is not known better
	}
	defer c.unwatch()
	l := link.New(c.conn, c.read, set.Limits)
	c.link.Store(l)
	err = Serve(ctx, l, h.door, set, h.Log)
	if ctx.Err() != nil {
		return nil // an end that was asked for is no error
	}
	return err
}

// wait returns the agent; or none, and ErrNoAgent unless ctx has ended.
func (h *Host) wait(ctx context.Context, agents <-chan *caller) (*caller, error) {
	var late *time.Timer
	var overdue <-chan time.Time
	if h.Patience > 0 {
		late = time.NewTimer(h.Patience)
		defer late.Stop()
		overdue = late.C
	}
	graced := false
	for {
		select {
		case c := <-agents:
			return c, nil
		case <-h.Orphaned:
			return nil, ErrNoAgent
		case <-ctx.Done():
			return nil, nil
		case <-overdue:
			// If this process stood still, the agent may be waiting to be accepted.
			if graced && len(h.places) == 0 {
				return nil, ErrNoAgent
			}
			graced = true
			late.Reset(lateGrace)
		}
	}
}

// accept looks at the connections of this user's processes: one is the agent's, and when looking for it has ended the others may be for
// its streams, until ctx ends.
func (h *Host) accept(ctx, looking context.Context, agents chan<- *caller) {
	var work sync.WaitGroup
	defer work.Wait()
	for {
		conn, err := h.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			h.noise.Error().Err(err).Msg("agent not accepted")
			<-time.After(acceptPause)
			continue
		}
		if err := sock.CheckPeer(conn); err != nil {
			h.noise.Warn().Err(err).Msg("connection refused")
			_ = conn.Close()
			continue
		}
		select {
		case h.places <- struct{}{}:
		case <-ctx.Done():
			_ = conn.Close()
			continue
		}
		work.Go(func() {
			if looking.Err() != nil {
				h.stream(ctx, conn, func() { <-h.places })
				return
			}
			defer func() { <-h.places }()
			h.look(looking, conn, agents)
		})
	}
}

func (h *Host) refuse(conn net.Conn) {
	h.noise.Warn().Msg("connection refused: a sidecar serves one agent")
	_ = conn.Close()
}

// look hands a connection over if it proves to be the agent's before ctx ends.
func (h *Host) look(ctx context.Context, conn net.Conn, agents chan<- *caller) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	c := &caller{conn: conn, settings: &h.Settings, silence: h.silence}
	h.watch(c)
	if err := c.prove(); err != nil {
		stop()
		c.unwatch()
		_ = conn.Close()
		h.noise.Debug().Err(err).Msg("connection closed: not the agent's")
		return
	}
	if !stop() {
		c.unwatch()
		return // closed, since another caller is the agent
	}
	select {
	case agents <- c:
	case <-ctx.Done():
		c.unwatch()
		h.refuse(conn)
	}
}
