package meshdebug

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh"
)

const (
	askTimeout = 2 * time.Second
	askLater   = 10 * time.Second // after a failure that may be over soon
	askRarely  = 5 * time.Minute  // if the peer does not want to answer
	maxAsking  = 16               // peers at a time
)

// An ask is what is known of a peer's will to answer.
type ask struct {
	sinceMS int64 // of the link
	next    time.Time
	running bool
	answers int // in this loop
	refused bool
}

// An answered is how a peer has taken the question.
type answered struct {
	peer string
	ask  *ask
	view *view
	err  error
}

// askEvery is the time from one question to a peer to the next: the more there are, the longer.
func (c *collector) askEvery() time.Duration {
	return max(2*c.interval, time.Duration(len(c.views))*100*time.Millisecond)
}

func (c *collector) running() (n int) {
	for _, a := range c.asks {
		if a.running {
			n++
		}
	}
	return n
}

// askPeers asks those peers whose turn it is, the one that has waited longest first.
func (c *collector) askPeers(ctx context.Context, all *sync.WaitGroup, answers chan<- answered) {
	if c.ownView {
		return
	}
	now := time.Now()
	var due []string
	for id, p := range c.own.peers {
		if !p.answers() {
			continue
		}
		a := c.asks[id]
		if a == nil {
			a = &ask{sinceMS: p.sinceMS}
			c.asks[id] = a
		}
		if !a.running && !now.Before(a.next) {
			due = append(due, id)
		}
	}
	slices.SortFunc(due, func(x, y string) int { return cmp.Or(c.asks[x].next.Compare(c.asks[y].next), cmp.Compare(x, y)) })
	for _, id := range due[:min(len(due), max(0, maxAsking-c.running()))] {
		a := c.asks[id]
		a.running = true
		all.Go(func() {
			got := answered{peer: id, ask: a}
			got.view, got.err = c.question(ctx, id)
			select {
			case answers <- got:
			case <-ctx.Done():
			}
		})
	}
}

func (c *collector) question(ctx context.Context, peer string) (*view, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	reply, err := c.from.Request(ctx, peer, mesh.Message{Type: StatsQuery})
	if err != nil {
		return nil, err
	}
	return readAnswer(peer, reply.Payload, time.Now())
}

// refusal reports whether a peer does not want to answer, or answers nonsense. Other failures may be over soon.
func refusal(err error) bool {
	return errors.Is(err, errAnswer) || errors.As(err, new(*mesh.RemoteError)) && !errors.Is(err, mesh.ErrBusy)
}

// take notes an answer.
func (c *collector) take(got answered) {
	a, now := got.ask, time.Now()
	a.running = false
	switch {
	case got.err == nil:
		got.view.rates(c.views[got.peer])
		c.views[got.peer] = got.view
		a.answers++
		a.refused = false
		a.next = now.Add(c.askEvery())
		if a.answers == 1 {
			a.next = now // the second answer gives the first rates
		}
	case c.views[got.peer] == nil && refusal(got.err):
		a.refused = true
		a.next = now.Add(askRarely)
	default:
		a.next = now.Add(askLater)
	}
}
