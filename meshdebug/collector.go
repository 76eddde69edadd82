package meshdebug

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh"
)

const (
	defaultInterval = time.Second
	minInterval     = 100 * time.Millisecond
	firstInterval   = time.Second // until there are rates

	viewLife   = 15 * time.Second // how long an answer is shown
	goneLife   = time.Minute      // how long a peer is that has gone
	newPeer    = time.Minute      // how old a link is at most that counts as an event when it is first seen
	settleTime = 2500 * time.Millisecond
)

// A source is where a collector gets its numbers from: a mesh.Mesh.
type source interface {
	ID() string
	Stats(ctx context.Context) (mesh.Stats, error)
	Request(ctx context.Context, peer string, msg mesh.Message) (*mesh.Message, error)
	Done() <-chan struct{}
}

// A collector takes samples while somebody looks.
type collector struct {
	from     source
	interval time.Duration
	ownView  bool // peers are not asked

	mu      sync.Mutex
	lookers map[*looker]struct{}
	stop    context.CancelFunc // of the loop that runs, nil if none does
	ended   chan struct{}      // closed when the last loop has ended, nil if there was none
	latest  *Snapshot
	points  []point // the history, the oldest first

	// Of the loop.
	began   time.Time
	own     *view
	views   map[string]*view
	asks    map[string]*ask
	gone    map[string]time.Time
	events  []Event
	started time.Time // this loop
	rounds  int
	numbers mesh.Stats
	err     error
}

// A looker gets snapshots. What it has not taken when the next one comes is lost.
type looker struct{ snapshots chan *Snapshot }

func newCollector(from source, interval time.Duration, ownView bool) *collector {
	return &collector{
		from: from, interval: max(interval, minInterval), ownView: ownView, lookers: make(map[*looker]struct{}), began: time.Now(),
		views: make(map[string]*view), asks: make(map[string]*ask), gone: make(map[string]time.Time),
	}
}

// look begins to look; nil if there are as many as may be. The caller calls leave in the end.
func (c *collector) look(most int) *looker {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.lookers) >= most {
		return nil
	}
	l := &looker{make(chan *Snapshot, 1)}
	c.lookers[l] = struct{}{}
	switch {
	case c.stop == nil:
		ctx, cancel := context.WithCancel(context.Background())
		before, ended := c.ended, make(chan struct{})
		c.stop, c.ended = cancel, ended
		go func() {
			defer close(ended)
			if before != nil {
				<-before
			}
			c.run(ctx)
		}()
	case c.latest != nil:
		l.snapshots <- c.latest
	}
	return l
}

// leave ends to look. When nobody looks any more the loop ends.
func (c *collector) leave(l *looker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.lookers, l)
	if len(c.lookers) == 0 && c.stop != nil {
		c.stop()
		c.stop, c.latest = nil, nil
	}
}

func (c *collector) run(ctx context.Context) {
	c.started, c.rounds = time.Now(), 0
	for _, a := range c.asks {
		a.answers = 0
	}
	tick := time.NewTicker(min(c.interval, firstInterval))
	defer tick.Stop()
	answers := make(chan answered)
	var asking sync.WaitGroup
	defer func() {
		asking.Wait()
		for _, a := range c.asks {
			a.running = false
		}
	}()
	sampled, calm := c.sample(ctx), false
	for {
		if sampled {
			c.askPeers(ctx, &asking, answers)
			c.publish(ctx, true)
		}
		if !calm && c.settled() {
			calm = true
			tick.Reset(c.interval)
		}
		select {
		case <-tick.C:
			sampled = c.sample(ctx)
		case a := <-answers:
			c.take(a)
			sampled = false
			if !calm && (c.settled() || c.running() == 0) { // somebody waits for it
				c.publish(ctx, false)
			}
		case <-ctx.Done():
			return
		}
	}
}

// sample takes the agent's own numbers.
func (c *collector) sample(ctx context.Context) bool {
	bound, cancel := context.WithTimeout(ctx, max(c.interval, time.Second))
	defer cancel()
	st, err := c.from.Stats(bound)
	if ctx.Err() != nil {
		return false
	}
	if c.own != nil && errors.Is(err, context.DeadlineExceeded) {
		return false // the machine is busy, and nobody has gone
	}
	now := time.Now()
	c.rounds++
	if c.err = err; err != nil { // the sidecar is being started again, or the mesh has ended
		st = mesh.Stats{Signaling: c.numbers.Signaling, Restarts: c.numbers.Restarts, Dropped: c.numbers.Dropped}
	}
	self := cmp.Or(st.Signaling.PeerID, c.from.ID())
	own := viewOf(self, &st, now, now.Sub(c.began), func(id string) bool { a := c.asks[id]; return a != nil && a.running })
	own.rates(c.own)
	c.notice(now, own, st.Restarts)
	c.own, c.numbers = own, st
	c.forget(now)
	return true
}

// notice makes events of what has changed.
func (c *collector) notice(now time.Time, own *view, restarts int) {
	var found []Event
	for _, id := range slices.Sorted(maps.Keys(own.peers)) {
		p := own.peers[id]
		var before *linkView
		if c.own != nil {
			before = c.own.peers[id]
		}
		switch {
		case before == nil:
			if c.own != nil || now.Sub(p.since) < newPeer {
				found = append(found, Event{At: p.since, Type: EventCame, Peer: id})
			}
		case before.sinceMS != p.sinceMS:
			found = append(found, Event{At: p.since, Type: EventGone, Peer: id}, Event{At: p.since, Type: EventCame, Peer: id})
		case before.path != p.path && before.path != "" && p.path != "":
			found = append(found, Event{At: now, Type: EventPath, Peer: id, Path: p.path})
		case before.outages < p.outages:
			found = append(found, Event{At: now, Type: EventOutage, Peer: id})
		}
		delete(c.gone, id)
	}
	if c.own != nil {
		for _, id := range slices.Sorted(maps.Keys(c.own.peers)) {
			if own.peers[id] == nil {
				found = append(found, Event{At: now, Type: EventGone, Peer: id})
				if len(c.gone) < maxNodes {
					c.gone[id] = now
				}
			}
		}
		if restarts > c.numbers.Restarts {
			found = append(found, Event{At: now, Type: EventRestart})
		}
	}
	slices.SortStableFunc(found, func(x, y Event) int { return x.At.Compare(y.At) })
	slices.Reverse(found)
	c.events = append(found, c.events...)
	c.events = slices.Clip(c.events[:min(len(c.events), maxEvents)])
}

// forget drops what is too old.
func (c *collector) forget(now time.Time) {
	maps.DeleteFunc(c.gone, func(_ string, at time.Time) bool { return now.Sub(at) > goneLife })
	maps.DeleteFunc(c.views, func(id string, v *view) bool {
		p := c.own.peers[id]
		return p == nil || now.Sub(v.taken) > max(viewLife, 3*c.askEvery())
	})
	maps.DeleteFunc(c.asks, func(id string, a *ask) bool {
		p := c.own.peers[id]
		return !a.running && (p == nil || p.sinceMS != a.sinceMS) // a new link may be to another program
	})
}

// settled reports whether another sample would tell no more than later ones will.
func (c *collector) settled() bool {
	if time.Since(c.started) > settleTime {
		return true
	}
	if c.rounds < 2 || c.own == nil {
		return false
	}
	for id, p := range c.own.peers {
		if a := c.asks[id]; !c.ownView && p.answers() && (a == nil || !a.refused && a.answers < 2) {
			return false
		}
	}
	return true
}

// publish shows everybody who looks what there is; a round is part of the history.
func (c *collector) publish(ctx context.Context, round bool) {
	s := c.snapshot()
	c.mu.Lock()
	defer c.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	c.latest = s
	if round {
		c.remember(s)
	}
	for l := range c.lookers {
		select {
		case <-l.snapshots:
		default:
		}
		l.snapshots <- s
	}
}

func (c *collector) snapshot() *Snapshot {
	s := &Snapshot{
		Self: c.own.of, At: c.own.taken, Signaling: c.numbers.Signaling.State, Restarts: c.numbers.Restarts, Dropped: c.numbers.Dropped,
		Events: slices.Clone(c.events), settled: c.settled(),
	}
	if err := cmp.Or(c.numbers.Signaling.Err, c.err); err != nil {
		s.SignalingError = err.Error()
	}
	assemble(s, c.own, c.views, c.gone)
	return s
}
