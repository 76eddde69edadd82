package mesh

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// closeTimeout bounds Close: draining, the end of the sidecar, and handlers
// that are slow to notice.
const (
	closeTimeout = 5 * time.Second
	// drainTime is the part of it for sending what was accepted.
	drainTime = 2 * time.Second
)

// open starts a sidecar and says hello to it.
func (m *Mesh) open(ctx context.Context) (*session, error) {
	start := launch
	if m.cfg.launch != nil {
		start = m.cfg.launch
	}
	side, err := start(ctx, &m.cfg, m.settings)
	if err != nil {
		return nil, err
	}
	s, err := openSession(ctx, m, side)
	if err != nil {
		side.stop(ctx)
		return nil, m.startError(ctx, side, err)
	}
	return s, nil
}

// startError prefers what the sidecar said itself to what its silence looked
// like, but not to the caller's own end of patience.
func (m *Mesh) startError(ctx context.Context, side *launched, err error) error {
	if cause := side.diagnose(); cause != nil && ctx.Err() == nil {
		err = cause
	}
	if m.cfg.Mode == Attach && ctx.Err() == nil {
		err = fmt.Errorf("%w; does another agent use this sidecar already?", err)
	}
	if start := (*StartError)(nil); errors.As(err, &start) {
		return err
	}
	return &StartError{Mode: m.cfg.Mode, Path: side.path, Err: err}
}

// run owns the sidecar: it waits for each one's end and starts the next, until
// the mesh closes or a crash loop shows that there is no use.
func (m *Mesh) run(s *session) {
	policy := newRestarts(m.cfg.Mode)
	var fatal error
	for s != nil && fatal == nil {
		began := time.Now()
		select {
		case <-s.ended:
		case <-m.ctx.Done():
			m.finish(s, nil)
			return
		}
		cause := m.lose(s)
		s, fatal = m.reopen(&policy, time.Since(began), cause)
	}
	m.finish(nil, fatal)
}

// lose ends everything that depended on a sidecar that is gone, and returns why
// it went.
func (m *Mesh) lose(s *session) error {
	m.mu.Lock()
	m.current = nil
	var gone []string
	for id, p := range m.peers {
		if p.live {
			gone = append(gone, id)
		}
	}
	var waiting []*waiter
	for _, ws := range m.waiters {
		waiting = append(waiting, ws...)
	}
	m.mu.Unlock()
	// The calls first: they are to fail with the true reason.
	m.calls.failAll(ErrSidecarLost)
	for _, id := range gone {
		m.peerDisconnected(id, ErrSidecarLost)
	}
	for _, w := range waiting {
		if w.connect {
			w.end(ErrSidecarLost)
		}
	}
	s.side.stop(m.ctx)
	cause := s.endError()
	if d := s.side.diagnose(); d != nil {
		cause = d
	}
	m.setSignaling(SignalingStatus{State: SignalingConnecting, Err: fmt.Errorf("%w: %w", ErrSidecarLost, cause)})
	m.report(fmt.Errorf("%w: %w", ErrSidecarLost, cause))
	return cause
}

// reopen starts sidecars until one answers, the mesh closes (nil, nil), or the
// policy gives up.
func (m *Mesh) reopen(policy *restarts, uptime time.Duration, cause error) (*session, error) {
	for {
		delay, giveUp := policy.next(uptime)
		if giveUp {
			return nil, fmt.Errorf("%w: %w", ErrCrashLoop, cause)
		}
		wait := time.NewTimer(delay)
		select {
		case <-wait.C:
		case <-m.ctx.Done():
			wait.Stop()
			return nil, nil
		}
		s, err := m.open(m.ctx)
		switch {
		case err == nil:
			return s, nil
		case m.ctx.Err() != nil:
			return nil, nil
		}
		m.report(err)
		uptime, cause = 0, err
	}
}

// finish ends the mesh: nobody waits any more, what is queued is sent, the
// sidecar ends, the handlers end.
func (m *Mesh) finish(s *session, err error) {
	if err == nil {
		err = ErrClosed
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	m.cancel(err)
	m.calls.end(err)
	if s != nil {
		drain, done := context.WithTimeout(ctx, drainTime)
		s.close(drain)
		done()
		s.side.stop(ctx)
	}
	m.mu.Lock()
	m.current = nil
	m.err = err
	m.signaling.State, m.signaling.Err = SignalingClosed, err
	for _, p := range m.peers {
		p.live = false
		p.change()
	}
	m.mu.Unlock()
	go m.end()
}

// end closes done when the last handler has returned. It is the one goroutine
// without an owner that waits: Close called from a handler must be able to
// return before it.
func (m *Mesh) end() {
	m.handlers.end()
	close(m.done)
}

// Done is closed when the mesh has ended, by Close or because its sidecar kept
// crashing, and nothing of it is left.
func (m *Mesh) Done() <-chan struct{} { return m.done }

// Err returns nil until Done is closed, then why the mesh ended: ErrClosed
// after Close, an error that wraps ErrCrashLoop after a crash loop.
func (m *Mesh) Err() error {
	select {
	case <-m.done:
	default:
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// Close ends the mesh: what was accepted is sent, peers are told, the sidecar
// ends. It returns when every goroutine, file and process of the mesh is gone,
// within 5 seconds or so; pending operations fail with ErrClosed. It is safe at
// any time, repeatedly, and from several goroutines. Called from a handler or
// callback it cannot wait for that one, so it returns when all else is gone.
//
// The error, if any, tells of handlers that ignore the end of their context.
func (m *Mesh) Close() error {
	t := time.NewTimer(closeTimeout)
	defer t.Stop()
	m.cancel(ErrClosed)
	m.work.Wait()
	if m.handlers.here() {
		return nil
	}
	select {
	case <-m.done:
		return nil
	case <-t.C:
	}
	select {
	case <-m.done: // both at once
		return nil
	default:
		return fmt.Errorf("mesh: close: a handler still runs %v after its context ended; handlers must return when their context does", closeTimeout)
	}
}
