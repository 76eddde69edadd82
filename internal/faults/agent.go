//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chatixia-ai/mesh"
)

// The types of messages. A numbered one belongs to a flow; a held request has no response until its context ends.
const (
	numbered = "numbered"
	echo     = "echo_request"
	held     = "held_request"
)

// An agent is one in this process, or at least its agent's part.
type agent struct {
	*mesh.Mesh
	id      string
	sink    *sink
	holding atomic.Int64 // requests that are held
	summed  atomic.Int64 // bytes that have come over streams

	mu     sync.Mutex
	events []mesh.PeerEvent
	gone   map[string]time.Time // when a peer was last reported gone
}

// start starts an agent on a signaling server. It ends with the row, if not before.
func (r *run) start(url, id string, edit ...func(*mesh.Config)) *agent {
	a, err := newAgent(r.ctx, url, id, edit...)
	r.stop("start of "+id, err)
	r.later(func() {
		if err := a.Close(); err != nil && !errors.Is(err, mesh.ErrUnsent) {
			r.check(false, "Close of %s: %v", id, err)
		}
		<-a.Done()
	})
	return a
}

func newAgent(ctx context.Context, url, id string, edit ...func(*mesh.Config)) (*agent, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	a := &agent{id: id, sink: newSink(), gone: make(map[string]time.Time)}
	cfg := mesh.Config{
		SignalingURL: url, APIKey: id, WaitSignaling: true, OnPeer: a.note,
		Handlers: map[string]mesh.Handler{
			numbered: a.sink.take,
			echo:     func(_ context.Context, msg *mesh.Message) (any, error) { return msg.Payload, nil },
			held: func(ctx context.Context, _ *mesh.Message) (any, error) {
				a.holding.Add(1)
				defer a.holding.Add(-1)
				<-ctx.Done()
				return nil, context.Cause(ctx)
			},
		},
	}
	for _, f := range edit {
		f(&cfg)
	}
	var err error
	if a.Mesh, err = mesh.New(ctx, cfg); err != nil {
		return a, err
	}
	return a, serveSums(a.Mesh, &a.summed)
}

func inMode(m mesh.Mode) func(*mesh.Config) { return func(cfg *mesh.Config) { cfg.Mode = m } }

func (a *agent) note(e mesh.PeerEvent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events = append(a.events, e)
	if !e.Connected {
		a.gone[e.ID] = time.Now()
	}
}

// losses returns how often peers were reported gone.
func (a *agent) losses() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.events {
		if !e.Connected {
			n++
		}
	}
	return n
}

// goneSince returns when a peer was reported gone after start.
func (a *agent) goneSince(peer string, start time.Time) (at time.Time, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at = a.gone[peer]
	return at, at.After(start)
}

// reach blocks until a peer responds, over whichever link.
func (a *agent) reach(ctx context.Context, peer string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := a.WaitPeer(ctx, peer)
		if err == nil {
			if _, err = a.Request(ctx, peer, mesh.Message{Type: echo}); err == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not reach %s: %w", a.id, peer, err)
		case <-time.After(look): // the loss of a link becomes known bit by bit
		}
	}
}

// linked blocks until each of the agents reaches every other.
func (r *run) linked(all ...*agent) {
	for _, a := range all {
		for _, b := range all {
			if a != b {
				r.stop("linking", a.reach(r.ctx, b.id))
			}
		}
	}
}

// A flow is a sequence of numbered messages from one agent to a peer.
type flow struct {
	sent   atomic.Int64 // accepted by Send
	stop   atomic.Bool
	cancel context.CancelFunc
	ended  chan struct{}
}

// catchUp is how far behind its interval a flow makes up for, as on a busy machine: not for what Send has blocked for long.
const catchUp = 200 * time.Millisecond

// flow sends messages of about size bytes to a peer, count of them or until it is halted, one each interval or as fast as Send
// takes them.
func (a *agent) flow(ctx context.Context, peer string, size, count int, interval time.Duration) *flow {
	ctx, cancel := context.WithCancel(ctx)
	f := &flow{cancel: cancel, ended: make(chan struct{})}
	pad := strings.Repeat("x", size)
	go func() { // ends with halt, or with its context
		defer close(f.ended)
		defer cancel()
		due := time.Now()
		for n := 0; !f.stop.Load() && ctx.Err() == nil && (count == 0 || n < count); {
			payload := json.RawMessage(fmt.Sprintf(`{"n":%d,"pad":"%s"}`, n, pad))
			if err := a.Send(ctx, peer, mesh.Message{Type: numbered, Payload: payload}); err != nil { // there is no link now
				time.Sleep(look)
				continue
			}
			n++
			f.sent.Add(1)
			if interval > 0 {
				if due = due.Add(interval); time.Since(due) > catchUp {
					due = time.Now().Add(-catchUp)
				}
				time.Sleep(time.Until(due))
			}
		}
	}()
	return f
}

// halt ends a flow and returns how many messages were accepted. A message that is blocked is waited for, within bounds.
func (f *flow) halt() int {
	f.stop.Store(true)
	defer time.AfterFunc(patience, f.cancel).Stop()
	<-f.ended
	return int(f.sent.Load())
}

// A sink counts the numbered messages of each peer.
type sink struct {
	mu   sync.Mutex
	from map[string]*tally
	slow func() // if not nil it is called for the next message, once
}

// A tally is what has arrived from one peer.
type tally struct {
	Got     int // messages
	Missing int // numbers that were left out
	Late    int // messages that came twice or out of order
	next    int
	last    time.Time
}

func newSink() *sink { return &sink{from: make(map[string]*tally)} }

// delay has f called with the next message.
func (s *sink) delay(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slow = f
}

func (s *sink) take(_ context.Context, msg *mesh.Message) (any, error) {
	var m struct{ N int }
	if err := msg.Decode(&m); err != nil {
		return nil, err
	}
	s.mu.Lock()
	t := s.from[msg.From]
	if t == nil {
		t = new(tally)
		s.from[msg.From] = t
	}
	t.count(m.N)
	slow := s.slow
	s.slow = nil
	s.mu.Unlock()
	if slow != nil {
		slow()
	}
	return nil, nil
}

func (t *tally) count(n int) {
	t.Got++
	t.last = time.Now()
	if n < t.next {
		t.Late++
		return
	}
	t.Missing += n - t.next
	t.next = n + 1
}

// of returns what has arrived from a peer.
func (s *sink) of(peer string) tally {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.from[peer]; t != nil {
		return *t
	}
	return tally{}
}

// arrived checks that all of a flow's messages arrive at to, once and in order.
func (r *run) arrived(sent int, from, to *agent) {
	r.progress(fmt.Sprintf("%d messages of %s at %s", sent, from.id, to.id), sent, func() int { return to.sink.of(from.id).Got })
	r.inOrder(sent, from.id, to.id, to.sink.of(from.id))
}

// inOrder checks that sent messages have arrived once and in order.
func (r *run) inOrder(sent int, from, to string, t tally) {
	r.check(t.Got == sent && t.Missing == 0 && t.Late == 0, "of %d messages from %s to %s %d arrived, %d of them twice or out of order, %d are missing", sent, from, to, t.Got, t.Late, t.Missing)
}
