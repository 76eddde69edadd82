// Package sidecar is the WebRTC side of one agent: it forwards between the link to the agent and the peer
// links to other sidecars, message bytes unchanged, and keeps no state about requests. docs/protocol.md
// describes both.
package sidecar

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/link"
	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// joinDelay is how long a silent agent keeps the sidecar off the mesh. An agent that knows the
	// extensions speaks at once; waiting for its hello means that no message arrives before it is known
	// how long a line may be.
	joinDelay = 250 * time.Millisecond
	// drainTimeout bounds a drain, goodbyeTimeout what is still sent for an agent that vanished.
	drainTimeout   = 5 * time.Second
	goodbyeTimeout = time.Second
)

// The sources of what is no peer's doing, in the log.
const (
	fromAgent     = "agent"
	fromSignaling = "signaling"
)

// A Sidecar serves one agent.
type Sidecar struct {
	set     Settings
	limits  wire.Limits
	log     zerolog.Logger
	outside *logs.Outside // the log of what agent and peers can cause without end
	link    *link.Link
	network network
	streams *streams
	ending  <-chan struct{} // closed when the sidecar is to end
	gone    chan struct{}   // closed when the agent's link has ended
	work    sync.WaitGroup

	spoke    chan struct{}         // closed when the agent's first line was handled
	terms    atomic.Pointer[terms] // from the agent's hello; nil for a base agent
	draining atomic.Bool

	mu     sync.RWMutex
	peers  map[string]*peer // live peers by id
	status signal.Status
	over   error // why the sidecar ended by itself, nil if it did not

	badLines, badPeerLines, dropped atomic.Int64 // counted in the log
}

// Serve is the sidecar of the agent at the other end of l, which gets streams by the door. It returns nil when the agent is gone, the
// cause of ctx when that ends, and an error that wraps signal.ErrReplaced if another instance of the agent
// has taken its place. When it returns, l and everything it started has ended.
func Serve(ctx context.Context, l *link.Link, door *Door, set Settings, log zerolog.Logger) error {
	s, err := newSidecar(l, set, log)
	if err != nil {
		l.Close()
		return err
	}
	door.open(s)
	return s.serve(ctx)
}

func newSidecar(l *link.Link, set Settings, log zerolog.Logger) (*Sidecar, error) {
	s := &Sidecar{
		set: set, limits: set.Limits, log: log, outside: logs.NewOutside(log, logs.AgentBurst),
		link:    l,
		streams: newStreams(),
		spoke:   make(chan struct{}),
		gone:    make(chan struct{}),
		peers:   make(map[string]*peer),
		status:  signal.Status{State: signal.Connecting},
	}
	var err error
	s.network, err = newNetwork(set, log, s)
	return s, err
}

func (s *Sidecar) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.ending = ctx.Done()
	stop := context.AfterFunc(ctx, s.link.Close)
	defer stop()
	s.work.Go(s.link.Run)
	s.work.Go(func() { s.join(ctx) })

	err := s.read(ctx)
	close(s.gone)

	// One second for all of it: most often the agent's peers end at the same time.
	goodbye, done := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTimeout)
	defer done()
	if flushErr := s.network.flush(goodbye); flushErr != nil && err == nil {
		s.log.Warn().Err(flushErr).Msg("agent left before everything was sent")
	}
	cancel()
	_ = s.network.close(goodbye) // what it could not send was logged just now
	s.link.Close()
	s.work.Wait()
	return err
}

// join enters the mesh once the agent is there.
func (s *Sidecar) join(ctx context.Context) {
	silence := time.NewTimer(joinDelay)
	defer silence.Stop()
	select {
	case <-s.spoke:
	case <-silence.C:
	case <-ctx.Done():
		return
	}
	if err := s.network.join(ctx); err != nil && ctx.Err() == nil {
		s.endBecause(ctx, err)
	}
}

// endBecause ends the sidecar while its agent is there. The agent has been told why.
func (s *Sidecar) endBecause(ctx context.Context, why error) {
	s.log.Error().Err(why).Msg("sidecar ends")
	s.mu.Lock()
	s.over = why
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, goodbyeTimeout)
	defer cancel()
	_ = s.link.Flush(ctx) // an agent that does not read is not waited for
	s.link.Close()
}

// read handles the agent's commands until the agent is gone.
func (s *Sidecar) read(ctx context.Context) error {
	var cmd wire.Line
	var end error
	limits := s.link.Limits(s.limits)
	first := true
	s.link.Serve(func(line []byte, err error) bool {
		if err == nil {
			err = wire.ParseCommand(line, limits, &cmd)
		} else {
			cmd = wire.Line{}
		}
		bad := wire.BadLine(err)
		if err != nil && bad == nil {
			end = s.agentGone(ctx, err)
			return false
		}
		if bad != nil {
			s.rejectLine(bad, &cmd)
		} else {
			s.command(ctx, &cmd)
		}
		if first {
			first = false
			close(s.spoke)
		}
		return true
	})
	return end
}

// agentGone returns the error for the end of the link. That the agent went is none, in whatever way.
func (s *Sidecar) agentGone(ctx context.Context, err error) error {
	s.mu.RLock()
	over := s.over
	s.mu.RUnlock()
	switch {
	case over != nil:
		return over
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	if !errors.Is(err, io.EOF) {
		s.log.Debug().Str("error", logs.Error(err)).Msg("link to the agent broke")
	}
	return nil
}

func (s *Sidecar) peer(id []byte) *peer {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.peers[string(id)]
}

func (s *Sidecar) peerList() wire.PeerList {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := wire.PeerList{Peers: slices.Sorted(maps.Keys(s.peers))}
	for i, id := range list.Peers {
		if key := s.peers[id].Key(); key != "" {
			if list.Keys == nil {
				list.Keys = make([]string, len(list.Peers))
			}
			list.Keys[i] = key
		}
	}
	return list
}

// event writes a line of the base protocol. The account is that of the peer who caused it, nil if none did.
func (s *Sidecar) event(to link.Account, add func([]byte) []byte) {
	s.written(s.link.WriteNow(to, add))
}

// written handles the error of an event.
func (s *Sidecar) written(err error) {
	// The link refuses only when it has ended, and then there is no reader, or when the agent has not read
	// for a very long time. An agent that misses events would be wrong about its peers for good, so that
	// is the end.
	if errors.Is(err, link.ErrOverflow) {
		s.log.Error().Err(err).Msg("agent not reading; closing link")
		s.link.Close()
	}
}

// tell writes a line of an extension, if the agent knows it.
func (s *Sidecar) tell(feature string, to link.Account, add func([]byte) []byte) {
	if s.terms.Load().knows(feature) {
		s.event(to, add)
	}
}

func (s *Sidecar) tellStatus() {
	s.mu.RLock()
	st := s.status
	s.mu.RUnlock()
	e := wire.Signaling{State: string(st.State), PeerID: st.PeerID}
	var refused *signal.RefusedError
	switch {
	case errors.As(st.Err, &refused):
		e.Error = refused.Detail
	case st.Err != nil:
		e.Error = st.Err.Error()
	}
	switch {
	case errors.Is(st.Err, errNotOurID):
		e.Code = wire.SignalingIdentity
	case errors.Is(st.Err, signal.ErrMisconfigured):
		e.Code = wire.SignalingMisconfigured
	case errors.Is(st.Err, signal.ErrInUse):
		e.Code = wire.SignalingInUse
	}
	s.tell(wire.FeatureError, nil, func(b []byte) []byte { return wire.AppendSignaling(b, e) })
}

// tellError tells the agent of an error that is about a peer, nil if it is about none with a link.
func (s *Sidecar) tellError(p *peer, e wire.ErrorEvent) {
	add := func(b []byte) []byte { return wire.AppendError(b, e) }
	if p == nil {
		s.tell(wire.FeatureError, nil, add)
		return
	}
	s.tell(wire.FeatureError, p, add)
	p.settle()
}
