package sidecar

import (
	"context"
	"crypto/subtle"
	"sync"

	"github.com/chatixia-ai/mesh/internal/relief"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// A Door is where an agent gets the streams of its sidecar: by itself in the process of the sidecar, else by connections to the socket. In the process of the
// sidecar it is also where requests wait for their responses.
type Door struct {
	mu      sync.Mutex
	sidecar *Sidecar
}

func (d *Door) open(s *Sidecar) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sidecar = s
}

// agent returns the sidecar behind the door, nil if there is none.
func (d *Door) agent() *Sidecar {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sidecar
}

// leaving returns a channel that is closed once a stream to the peer has ended that the agent has closed already; nil if there is none.
func (d *Door) leaving(peer string) <-chan struct{} {
	s := d.agent()
	if s == nil {
		return nil
	}
	return s.streams.leaving(peer)
}

// Attend has the caller, who waits for a response of a peer, read what that sends until g is over, or ctx. It may also return before.
func (d *Door) Attend(ctx context.Context, peer string, g *relief.Guest) {
	s := d.agent()
	if s == nil {
		return
	}
	s.mu.RLock()
	p := s.peers[peer]
	s.mu.RUnlock()
	if p != nil {
		p.Attend(ctx, g)
	}
}

// Stream opens a stream to a service of a peer, or takes one that the agent was told of, as the first line of a connection for a
// stream says. The error is a *wire.Error, or the cause of ctx.
func (d *Door) Stream(ctx context.Context, r wire.Stream) (Stream, error) {
	s := d.agent()
	switch {
	case s == nil || subtle.ConstantTimeCompare([]byte(r.Secret), []byte(s.streams.secret)) != 1:
		return nil, &wire.Error{Code: wire.CodeUnauthorized, Text: "not the secret of ready"}
	case r.PeerID == "":
		return s.takeStream(ctx, r.Stream)
	}
	return s.openStream(ctx, r.PeerID, r.Service)
}
