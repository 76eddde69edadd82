package sidecar

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/link"
	"github.com/chatixia-ai/mesh/internal/sock"
)

const (
	// peekTime is how long a new connection may say nothing before it is served. A program that only checks
	// whether a process listens hangs up at once.
	peekTime = 50 * time.Millisecond
	// silentAgent is how long a connection that says nothing must have stayed to count as the agent's: base
	// agents may only listen.
	silentAgent = 10 * time.Second
	// maxCallers bounds the connections that may say their first byte, and those that wait, at a time.
	maxCallers = 8
	// acceptPause is the pause after an accept that failed, such as for lack of file descriptors.
	acceptPause = 100 * time.Millisecond
)

// ErrNoAgent means that no agent connected in time.
var ErrNoAgent = errors.New("no agent connected to the sidecar in time")

var errNoValidLine = errors.New("no valid line came from the caller, and another one waits")

// A Host serves a sidecar to one agent on a socket.
type Host struct {
	Listener net.Listener
	Settings Settings
	Log      zerolog.Logger
	Patience time.Duration   // how long an agent may take to connect; 0 means for ever
	Orphaned <-chan struct{} // closed when the process that would connect is gone; may be nil

	silence time.Duration // silentAgent, but in tests

	// Of Run alone.
	current *caller   // the one being served
	waiting []*caller // while it is not known whether current is the agent
}

// Run serves the first agent. It returns nil when that is gone or ctx ends, ErrNoAgent, or the error of
// Serve. It closes the listener, and may be called once.
//
// Agents are not the only programs that connect: health checks do, too. A caller is the agent once it has
// sent a valid line. A caller that says nothing, as base agents may, is the agent if it is the sidecar's
// parent, or once it has stayed for silentAgent. One that has sent only invalid lines is not. Further
// callers wait until that is known, and are refused once there is an agent.
func (h *Host) Run(ctx context.Context) error {
	if h.silence == 0 {
		h.silence = silentAgent
	}
	ctx, cancel := context.WithCancel(ctx)
	arrived := make(chan *caller)
	var accepting sync.WaitGroup
	accepting.Go(func() { h.accept(ctx, arrived) })
	defer func() {
		cancel()
		_ = h.Listener.Close()
		accepting.Wait()
		h.refuseWaiting()
		if h.current != nil {
			h.current.release()
		}
	}()
	return h.decide(ctx, arrived)
}

// decide serves one caller after the other until one was the agent, or until none can be any more.
func (h *Host) decide(ctx context.Context, arrived <-chan *caller) error {
	var late <-chan time.Time
	if h.Patience > 0 {
		timer := time.NewTimer(h.Patience)
		defer timer.Stop()
		late = timer.C
	}
	orphaned, overdue := h.Orphaned, false
	for {
		spoke, greeted, stayed, ended := h.current.signs()
		select {
		case c := <-arrived:
			h.arrived(ctx, c)
		case <-spoke:
			h.current.spoken = true
			h.displace()
		case <-greeted:
			h.admit()
		case <-stayed:
			if !h.current.spoken {
				h.admit()
			}
		case err := <-ended:
			if h.current.wasAgent(err) {
				return endOf(ctx, err)
			}
			h.Log.Debug().Err(err).Msg("connection closed before an agent spoke")
			h.next(ctx)
		case <-late:
			overdue = true
		case <-orphaned:
			orphaned, overdue = nil, true
		case <-ctx.Done():
			if h.current == nil {
				return nil
			}
			return endOf(ctx, <-ended)
		}
		if overdue && h.current == nil {
			return ErrNoAgent
		}
	}
}

// endOf returns the error with which serving an agent ended, nil if ctx ended it.
func endOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// arrived serves a caller, lets it wait, or refuses it.
func (h *Host) arrived(ctx context.Context, c *caller) {
	switch {
	case h.current == nil:
		h.serve(ctx, c)
	case h.current.agent || len(h.waiting) >= maxCallers:
		h.refuse(c)
	default:
		h.waiting = append(h.waiting, c)
		h.displace()
	}
}

// admit takes the current caller for the agent.
func (h *Host) admit() {
	h.current.agent = true
	h.refuseWaiting()
}

// displace hangs up on a caller that has said nothing valid while another one waits.
func (h *Host) displace() {
	if len(h.waiting) > 0 && h.current.spoken && !h.current.agent && !closed(h.current.greeted) {
		h.current.cancel(errNoValidLine)
	}
}

// next serves the caller that has waited longest.
func (h *Host) next(ctx context.Context) {
	h.current.release()
	h.current = nil
	if len(h.waiting) > 0 {
		c := h.waiting[0]
		h.waiting = h.waiting[1:]
		h.serve(ctx, c)
	}
}

func (h *Host) refuse(c *caller) {
	h.Log.Warn().Msg("second agent refused: a sidecar serves one")
	_ = c.conn.Close()
}

func (h *Host) refuseWaiting() {
	for _, c := range h.waiting {
		h.refuse(c)
	}
	h.waiting = nil
}

// serve makes a caller the current one. Run waits for its end.
func (h *Host) serve(ctx context.Context, c *caller) {
	h.current = c
	ctx, c.cancel = context.WithCancelCause(ctx)
	c.ended = make(chan error, 1)
	l := link.New(c.conn, c.read, h.Settings.Limits)
	s, err := newSidecar(l, h.Settings, h.Log)
	if err != nil {
		l.Close()
		c.ended <- err
		return
	}
	c.spoke, c.greeted = s.spoke, s.greeted
	c.stay(h.silence)
	go func() { c.ended <- s.serve(ctx) }()
}

// accept hands over the connections of this user's processes, until the listener is closed.
func (h *Host) accept(ctx context.Context, arrived chan<- *caller) {
	var looking sync.WaitGroup
	defer looking.Wait()
	places := make(chan struct{}, maxCallers)
	for {
		conn, err := h.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			h.Log.Error().Err(err).Msg("agent not accepted")
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
			continue
		}
		if err := sock.CheckPeer(conn); err != nil {
			h.Log.Warn().Err(err).Msg("connection refused")
			_ = conn.Close()
			continue
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			_ = conn.Close()
			continue
		}
		looking.Go(func() {
			defer func() { <-places }()
			h.look(ctx, conn, arrived)
		})
	}
}

// look hands a connection over once it has said something or stayed for a moment. The agent of a sidecar
// that wants a token speaks at once, so there a silent connection is not handed over.
func (h *Host) look(ctx context.Context, conn net.Conn, arrived chan<- *caller) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	wait := peekTime
	if h.Settings.Token != "" {
		wait = h.silence
	}
	c := &caller{conn: conn, token: h.Settings.Token != "", since: time.Now()}
	if !c.peek(wait) || !stop() {
		_ = conn.Close()
		return
	}
	select {
	case arrived <- c:
	case <-ctx.Done():
		_ = conn.Close()
	}
}

// A caller is a connection to a Host that may be the agent's.
type caller struct {
	conn  net.Conn
	read  []byte // from conn already
	token bool   // the agent has to show one
	since time.Time

	// Of the one that is served.
	cancel         context.CancelCauseFunc
	spoke, greeted <-chan struct{} // closed by its sidecar: its first line, its first valid line
	stayed         *time.Timer     // when silence makes it the agent; nil if it never does
	ended          chan error
	spoken         bool // spoke was seen
	agent          bool // it is the agent
}

// peek blocks until the caller's first byte has arrived or wait is over, and reports whether the caller is
// worth serving: it has said something, or may yet.
func (c *caller) peek(wait time.Duration) bool {
	if c.conn.SetReadDeadline(time.Now().Add(wait)) != nil {
		return false
	}
	var b [1]byte
	n, err := c.conn.Read(b[:])
	c.read = append(c.read, b[:n]...)
	if err != nil && (c.token || !errors.Is(err, os.ErrDeadlineExceeded)) {
		return false
	}
	return c.conn.SetReadDeadline(time.Time{}) == nil
}

// stay sets the time at which silence makes the caller the agent.
func (c *caller) stay(silence time.Duration) {
	if c.token {
		return
	}
	wait := silence - time.Since(c.since)
	if pid, ok := sock.PeerPID(c.conn); ok && pid == os.Getppid() {
		wait = 0
	}
	c.stayed = time.NewTimer(wait)
}

func (c *caller) release() {
	c.cancel(nil)
	if c.stayed != nil {
		c.stayed.Stop()
	}
}

// signs returns the channels to wait on for a caller that is served: its first line, its first valid line,
// the time at which its silence counts, and its end. They are nil for a nil caller.
func (c *caller) signs() (spoke, greeted <-chan struct{}, stayed <-chan time.Time, ended <-chan error) {
	if c == nil {
		return nil, nil, nil, nil
	}
	if !c.spoken {
		spoke = c.spoke
	}
	if !c.agent {
		greeted = c.greeted
	}
	if c.stayed != nil {
		stayed = c.stayed.C
	}
	return spoke, greeted, stayed, c.ended
}

// wasAgent reports whether a caller whose serving ended with err was the agent, so that its end is the
// sidecar's.
func (c *caller) wasAgent(err error) bool {
	if errors.Is(err, ErrUnauthorized) || errors.Is(err, errNoValidLine) {
		return false
	}
	return err != nil || c.agent || closed(c.greeted) // an error is not the caller's doing
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
