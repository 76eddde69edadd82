package mesh

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chatixia-ai/mesh/internal/backoff"
)

const (
	// startTimeout bounds the start of the first sidecar where the caller's
	// context has no deadline, restartTimeout that of each later one: more each
	// time that it is not enough, up to restartTimeoutMost.
	startTimeout       = 5 * time.Second
	restartTimeout     = 30 * time.Second
	restartTimeoutMost = 5 * time.Minute
	// drainGrace is how long after Config.DrainTimeout the sidecar may take to tell what it could not send,
	// endTime how long after it a sidecar may take to end.
	drainGrace = time.Second
	endTime    = 3 * time.Second
)

// errNotReady means that a sidecar took too long to start, which is no crash.
var errNotReady = errors.New("not ready")

// start starts a sidecar and says hello to it, within limit if ctx has no
// deadline.
func (m *Mesh) start(ctx context.Context, limit time.Duration) (*ipc, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w within %v", errNotReady, limit))
		defer cancel()
	}
	side, err := m.launch(ctx, &m.cfg, m.settings)
	if err != nil {
		return nil, err
	}
	c, err := openIPC(ctx, m, side)
	if err != nil {
		side.stop(ctx)
		return nil, m.startError(ctx, side, err)
	}
	return c, nil
}

// startError returns the *StartError for err, unless that is a *ConfigError. What the
// sidecar said itself is the better reason, except when the caller's context has
// ended.
func (m *Mesh) startError(ctx context.Context, side *launched, err error) error {
	if cfg := (*ConfigError)(nil); errors.As(err, &cfg) {
		return err
	}
	if cause := side.diagnose(); cause != nil && ctx.Err() == nil {
		err = cause
	}
	if m.cfg.Mode == Attach && !errors.Is(err, context.Canceled) {
		err = fmt.Errorf("%w; does another agent use this sidecar already?", err)
	}
	if start := (*StartError)(nil); errors.As(err, &start) {
		return err
	}
	return &StartError{Mode: m.cfg.Mode, Path: side.path, Err: err}
}

// run owns the sidecar: it waits for each one's end and starts the next, until
// the mesh closes, is replaced, or gives up on a crash loop.
func (m *Mesh) run(c *ipc) {
	policy := newRestarts(m.cfg.Mode)
	for {
		began := time.Now()
		select {
		case <-c.ended:
		case <-c.replaced:
		case <-m.ctx.Done():
			m.finish(c, ErrClosed)
			return
		}
		if c.wasReplaced() {
			m.log.Warn().Err(c.successor).Msg("another instance has the peer id; mesh ends")
			m.finish(c, c.successor)
			return
		}
		cause := m.lose(c)
		next, err := m.restart(&policy, time.Since(began), cause)
		if next == nil {
			m.finish(nil, err)
			return
		}
		c = next
		m.observe(m.cfg.Observer.Restarted != nil, func(o *Observer) { o.Restarted(cause) })
	}
}

// lose ends everything that depended on a sidecar that is gone, and returns why
// it went.
func (m *Mesh) lose(c *ipc) error {
	m.loseAll(c)
	c.side.stop(m.ctx)
	cause := c.endError()
	if d := c.side.diagnose(); d != nil {
		if cause = d; c.hung.Load() {
			cause = because(ErrSidecarHung, d)
		}
	}
	lost := because(ErrSidecarLost, cause)
	m.setSignaling(SignalingStatus{State: SignalingConnecting, Err: lost})
	m.report(lost)
	return cause
}

// loseAll ends all peer links of a sidecar, and the calls and attempts that wait
// for them.
func (m *Mesh) loseAll(c *ipc) {
	m.mu.Lock()
	m.current = nil
	m.lostDrops += c.dropped
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
}

// restart starts sidecars until one responds. It returns nil, and why the mesh
// ends, when the mesh closes or the policy gives up. What the host lacks is waited
// for, as long as it takes, and each failure is reported.
func (m *Mesh) restart(policy *restarts, uptime time.Duration, cause error) (*ipc, error) {
	limit := restartTimeout
	short := 0 // attempts that failed for want of something
	delay, giveUp := policy.next(uptime)
	for !giveUp {
		wait := time.NewTimer(delay)
		select {
		case <-wait.C:
		case <-m.ctx.Done():
			wait.Stop()
			return nil, ErrClosed
		}
		c, err := m.start(m.ctx, limit)
		switch {
		case err == nil:
			return c, nil
		case m.ctx.Err() != nil:
			return nil, ErrClosed
		}
		m.report(err)
		cause = err
		switch lacking := (shortage{}); {
		case errors.Is(err, errNotReady): // the host is slow
			limit = min(2*limit, restartTimeoutMost)
			delay = policy.delay()
		case errors.As(err, &lacking):
			delay = backoff.Delay(restartFirst, restartMost, short)
			short++
		default:
			delay, giveUp = policy.next(0)
		}
	}
	return nil, because(ErrCrashLoop, cause)
}

// finish ends the mesh, for the reason err: pending calls fail, the contexts of
// handlers end, what is queued is sent, and the sidecar ends.
func (m *Mesh) finish(c *ipc, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), m.cfg.DrainTimeout+endTime)
	defer cancel()
	m.cancel(err)
	m.calls.end(err)
	var unsent error
	if c != nil {
		unsent = c.close(ctx, m.cfg.DrainTimeout)
		c.side.stop(ctx)
	}
	if !errors.Is(err, ErrClosed) {
		unsent = nil // Err says what was lost
	}
	m.mu.Lock()
	m.current = nil
	m.err, m.unsent = err, unsent
	m.signaling.Err = err
	if m.signaling.State != SignalingReplaced {
		m.signaling.State = SignalingClosed
	}
	for _, p := range m.peers {
		p.live = false
		p.changeLocked()
	}
	m.mu.Unlock()
	m.handlers.end()
	go func() { // it ends when Done is closed
		m.handlers.wg.Wait()
		close(m.done)
	}()
}

const (
	restartFirst = 50 * time.Millisecond
	restartMost  = 5 * time.Second
	// longLife is how long a sidecar must have run for its end not to count
	// towards a crash loop.
	longLife = 10 * time.Second
	// maxShortLives is how many shorter lives in a row make a crash loop.
	maxShortLives = 6
)

// restarts decides when to start the next sidecar. It has no clock: the caller
// measures and waits.
type restarts struct {
	// spawned says that this program started the sidecar, so that one more attempt
	// changes nothing. An attached sidecar may come back at any time.
	spawned bool
	short   int // lives in a row that were short
}

func newRestarts(m Mode) restarts {
	return restarts{spawned: m == SelfExec || m == Binary}
}

// next is called when a sidecar has ended that was connected for uptime, which
// is 0 for one that did not come up. It returns how long to wait before the next
// start, or giveUp if there should be none.
func (r *restarts) next(uptime time.Duration) (delay time.Duration, giveUp bool) {
	if uptime >= longLife {
		r.short = 0
	} else {
		r.short++
	}
	if r.spawned && r.short >= maxShortLives {
		return 0, true
	}
	return r.delay(), false
}

// delay returns how long to wait before the next start.
func (r *restarts) delay() time.Duration {
	return backoff.Delay(restartFirst, restartMost, max(r.short-1, 0))
}
