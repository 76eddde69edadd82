package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// dialTimeout bounds a Dial whose context has no deadline: it is longer than the peer's
// listener may take.
const dialTimeout = 30 * time.Second

// Dial opens a stream to a service of a peer, for which the peer listens (Listen). It
// blocks, under ctx or for 30 s if that has no deadline, until the peer has taken the
// stream; if the sidecar is another process for 35 s at most, and then the error wraps
// ErrStreamRefused. The connection is a *Conn.
//
// Errors are a *net.OpError, which wraps ErrNotConnected, ErrNoStreams, ErrNoService,
// ErrStreamRefused, ErrTooManyStreams, ErrStreamReset if the peer has taken the stream and
// given it up at once, ErrPeerGone, ErrSidecarLost, ErrInvalid for a name that can be
// none, the reason for which the mesh ended, or the cause of ctx.
func (m *Mesh) Dial(ctx context.Context, peer, service string) (net.Conn, error) {
	c, err := m.dial(ctx, peer, service)
	if err != nil { // and not a *Conn that is nil
		return nil, &net.OpError{Op: "dial", Net: "mesh", Addr: Addr{peer, service}, Err: err}
	}
	return c, nil
}

func (m *Mesh) dial(ctx context.Context, id, service string) (*Conn, error) {
	if err := wire.CheckService(service); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrInvalid, wire.BadLine(err).Text)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, dialTimeout)
		defer cancel()
	}
	if m.ctx.Err() != nil {
		return nil, m.closedError()
	}
	c := m.ipc()
	switch {
	case c == nil:
		return nil, ErrSidecarLost
	case !c.has(wire.FeatureStreams):
		return nil, fmt.Errorf("%w: the sidecar knows none", ErrNoStreams)
	}
	peer, live := m.livePeer(id)
	if !live {
		return nil, ErrNotConnected
	}
	s, err := c.stream(ctx, wire.Stream{PeerID: id, Service: service})
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		return nil, ended(ctx)
	} else if err != nil {
		return nil, c.streamError(err)
	}
	return &Conn{ipc: c, s: s, local: Addr{m.Signaling().PeerID, service}, remote: Addr{id, service}, peer: peer}, nil
}

// ended returns the cause of the end of a context, which is a timeout to package net if it is one.
func ended(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return timeoutError{context.Cause(ctx)}
	}
	return context.Cause(ctx)
}

// A timeoutError is the cause of the end of a context whose time was up.
type timeoutError struct{ error }

func (e timeoutError) Unwrap() error        { return e.error }
func (e timeoutError) Timeout() bool        { return true }
func (e timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// livePeer returns a peer whose link is live.
func (m *Mesh) livePeer(id string) (p Peer, live bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if known := m.peers[id]; known != nil && known.live {
		return known.public(), true
	}
	return Peer{}, false
}

// DialContext is Dial for what takes a function that dials an address, such as
// http.Transport, grpc.WithContextDialer and database drivers. The address is
// peer:service, as in "bob:http"; of the ports that a URL may have 80 means http and 443
// https, so that http://bob/ is the service http of bob. The network is mesh or tcp.
func (m *Mesh) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	i := strings.LastIndexByte(addr, ':')
	var err error
	switch network {
	case "mesh", "tcp", "tcp4", "tcp6":
		if i < 0 {
			err = fmt.Errorf("%w: address %q without a service; want peer:service", ErrInvalid, addr)
		}
	default:
		err = net.UnknownNetworkError(network)
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	service := addr[i+1:]
	switch service {
	case "80":
		service = "http"
	case "443":
		service = "https"
	}
	return m.Dial(ctx, addr[:i], service)
}
