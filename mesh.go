// Package mesh puts a program on a peer-to-peer mesh of WebRTC data channels:
// direct, encrypted links to other programs, wherever they run and whatever
// they are written in.
//
// A program on the mesh is an agent. [New] gives it a [Mesh], on which it sends
// messages ([Mesh.Send], [Mesh.Broadcast]), asks requests ([Mesh.Request]) and
// answers them ([Config.Handlers]). Agents are named by peer ids, which the
// signaling server gives out with each API key; see package signaling for a
// server to embed.
//
// # Where the sidecar runs
//
// The WebRTC side of an agent is its sidecar. [Config.Mode] says where it runs:
// in this process, as a forked copy of this program, as another executable, or
// as one that someone else started. Agent and sidecar speak one protocol in
// every case, JSON lines over a connection, so what an agent sees does not
// depend on the mode:
//
//	agent ──── link ──── sidecar ════ peer link (WebRTC) ════ sidecar ──── link ──── agent
//
// A program that uses [SelfExec] calls [SidecarMain] first thing in main.
//
// # What to rely on
//
// Messages from one peer to another arrive in order and once, or the loss of
// the link is reported ([Config.OnPeer]). Every queue is bounded: a receiver
// that is slow makes its senders wait, under their contexts, and nobody else.
// A sidecar that dies is replaced; what waited for it fails at once.
//
// The package keeps no global state, handles no signals, never exits, and
// writes nothing to stdout or stderr.
package mesh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// A Mesh is an agent's place on the mesh. Its methods are safe for concurrent
// use; Close ends it.
type Mesh struct {
	cfg      Config
	settings settings
	limits   wire.Limits
	log      zerolog.Logger
	noise    zerolog.Logger // log, for what a peer or the sidecar can cause without end
	reports  atomic.Int64   // failures that were logged there

	ctx      context.Context // ends when Close begins
	cancel   context.CancelCauseFunc
	work     sync.WaitGroup // run, readers, writers
	handlers *workers       // handlers and callbacks of the application
	notices  notices
	calls    calls
	ids      requestIDs
	done     chan struct{}
	audience chan struct{} // buffered 1: taken by the Broadcast that is writing
	buffers  sync.Pool     // of *[]byte: messages on their way to the link

	mu        sync.Mutex
	err       error // why done is closed
	current   *session
	peers     map[string]*peer
	waiters   map[string][]*waiter
	byType    map[string]Handler
	signaling SignalingStatus
	signaled  chan struct{} // closed when signaling changes
}

// A peer is what the agent knows of another one; guarded by Mesh.mu.
type peer struct {
	live    bool
	stop    stop
	changed chan struct{} // closed when live or stop changes
	inbox   *inbox
	// work and replies are taken by whoever writes to the peer, new work or a
	// reply: senders wait in line for their turn, and only the first one for the
	// peer. Replies have a line of their own, since they pass a busy peer.
	work, replies chan struct{}
}

func newPeer(m *Mesh, id string) *peer {
	return &peer{
		changed: make(chan struct{}), inbox: newInbox(m, id),
		work: make(chan struct{}, 1), replies: make(chan struct{}, 1),
	}
}

// A PeerEvent tells that a peer came or went.
type PeerEvent struct {
	Mesh      *Mesh // on which it happened
	Peer      string
	Connected bool
	// Err says why a peer went: ErrPeerGone, or ErrSidecarLost when our own
	// sidecar ended. nil if Connected.
	Err error
}

// A SignalingState is how the connection to the signaling server fares. Links
// to peers live on without it; only new ones need it.
type SignalingState string

const (
	// SignalingConnecting: not connected, trying.
	SignalingConnecting SignalingState = "connecting"
	// SignalingConnected: registered under PeerID.
	SignalingConnected SignalingState = "connected"
	// SignalingRefused: the server does not accept the API key; tried again
	// every now and then.
	SignalingRefused SignalingState = "refused"
	// SignalingClosed: the mesh has ended.
	SignalingClosed SignalingState = "closed"
)

// A SignalingStatus is the state of signaling, with the reason if it is not
// connected.
type SignalingStatus struct {
	State  SignalingState
	PeerID string // ours, once known
	Err    error  // wraps ErrRefused if State is SignalingRefused
}

// New starts a sidecar and returns once it answers. ctx bounds the start only;
// Close ends the mesh. Signaling goes on in the background unless
// Config.WaitSignaling is set. Errors are a *ConfigError, a *StartError,
// ErrNotDispatched, or with WaitSignaling the reason of the refusal or the end
// of ctx.
func New(ctx context.Context, cfg Config) (*Mesh, error) {
	if err := checkDispatched(); err != nil {
		return nil, err
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	set, err := cfg.settings()
	if err != nil {
		return nil, err
	}
	m := &Mesh{
		cfg: cfg, settings: set, limits: set.limits(), log: cfg.Logger, noise: sampled(cfg.Logger),
		done:      make(chan struct{}),
		handlers:  newWorkers(),
		audience:  make(chan struct{}, 1),
		peers:     make(map[string]*peer),
		waiters:   make(map[string][]*waiter),
		byType:    make(map[string]Handler),
		signaling: SignalingStatus{State: SignalingConnecting},
		signaled:  make(chan struct{}),
	}
	m.notices.m = m
	for typ, h := range cfg.Handlers {
		m.byType[typ] = h
	}
	m.ctx, m.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	s, err := m.open(ctx)
	if err != nil {
		m.cancel(err)
		m.work.Wait()
		m.handlers.end()
		return nil, err
	}
	m.work.Go(func() { m.run(s) })
	if cfg.WaitSignaling {
		if err := m.waitSignaling(ctx); err != nil {
			_ = m.Close() // the reason to close is the error that counts
			return nil, err
		}
	}
	return m, nil
}

func (m *Mesh) waitSignaling(ctx context.Context) error {
	for {
		m.mu.Lock()
		st, changed := m.signaling, m.signaled
		m.mu.Unlock()
		switch st.State {
		case SignalingConnected:
			return nil
		case SignalingRefused:
			return st.Err
		}
		select {
		case <-changed:
		case <-m.done:
			return m.Err()
		case <-ctx.Done():
			err := context.Cause(ctx)
			if st.Err != nil {
				return fmt.Errorf("mesh: waiting for the signaling server at %s: %w; last error: %w", m.cfg.SignalingURL, err, st.Err)
			}
			return fmt.Errorf("mesh: waiting for the signaling server at %s: %w", m.cfg.SignalingURL, err)
		}
	}
}

// ID returns this agent's own peer id, as the signaling server has given it;
// "" until it has.
func (m *Mesh) ID() string { return m.Signaling().PeerID }

// Signaling returns how the connection to the signaling server fares.
func (m *Mesh) Signaling() SignalingStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.signaling
}

// SidecarPID returns the process id of the running sidecar if this mesh started
// a process, else 0.
func (m *Mesh) SidecarPID() int {
	if s := m.session(); s != nil {
		return s.side.pid
	}
	return 0
}

// Peers returns the ids of the peers whose links are live, sorted.
func (m *Mesh) Peers() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	ids := make([]string, 0, len(m.peers))
	for id, p := range m.peers {
		if p.live {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Handle registers the handler for a message type, or with type "" the one for
// every type that has none of its own. It returns ErrDuplicate if the type has
// one already, ErrInvalid if h is nil, and ErrClosed after Close. Messages that came before are not
// kept for it: use Config.Handlers for types that peers may send at once.
func (m *Mesh) Handle(typ string, h Handler) error {
	if h == nil {
		return fmt.Errorf("%w: Handle(%q): %w", ErrInvalid, typ, errNilHandler)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return m.closedError()
	}
	if m.byType[typ] != nil {
		return fmt.Errorf("%w: type %q has a handler already", ErrDuplicate, typ)
	}
	m.byType[typ] = h
	return nil
}

func (m *Mesh) handler(typ string) Handler {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h := m.byType[typ]; h != nil {
		return h
	}
	if typ == typePing {
		return nil // has an answer of its own
	}
	return m.byType[""]
}

// closedError is why the mesh takes no more work.
func (m *Mesh) closedError() error {
	if err := context.Cause(m.ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return ErrClosed
}

func (m *Mesh) session() *session {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.current
}
