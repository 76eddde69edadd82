// Package mesh puts a program on a peer-to-peer mesh of WebRTC data channels:
// direct, encrypted links to other programs, wherever they run and whatever
// they are written in.
//
// A program on the mesh is an agent. [New] gives it a [Mesh], on which it sends
// messages ([Mesh.Send], [Mesh.Broadcast]), makes requests ([Mesh.Request]) and
// responds to them ([Config.Handlers]). Agents are named by peer ids, which the
// signaling server assigns by API key; package signaling is a server to embed.
//
// # Where the sidecar runs
//
// The WebRTC side of an agent is its sidecar. [Config.Mode] says where it runs:
// in this process, as a forked copy of this program, as another executable, or
// as one that is running already. Agent and sidecar speak one protocol in every
// case, JSON lines over a connection, so what an agent sees does not depend on
// the mode:
//
//	agent ──── link ──── sidecar ════ peer link (WebRTC) ════ sidecar ──── link ──── agent
//
// A program that uses [SelfExec] calls [SidecarMain] first thing in main.
//
// # What to rely on
//
// Messages from one peer to another arrive once, or the loss of the link is
// reported ([Config.OnPeer]). Those without a RequestID arrive in order, and so do
// those with one, requests and responses, which go ahead of the others that wait.
// Every queue is bounded: a slow receiver makes its senders block, under their
// contexts, and nothing else. A sidecar that dies is replaced; what waited for it
// fails at once.
//
// The package keeps no global state and never exits. Outside of [SidecarMain] it
// handles no signals and writes nothing to stdout or stderr.
package mesh

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/pace"
	"github.com/chatixia-ai/mesh/internal/sidecar"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// A Mesh is an agent's place on the mesh. Its methods are safe for concurrent
// use; Close ends it.
type Mesh struct {
	cfg        Config
	settings   sidecar.Settings
	limits     wire.Limits
	launch     func(context.Context, *Config, sidecar.Settings) (*launched, error)
	log        zerolog.Logger
	outside    *logs.Outside         // the log of what peers and the sidecar can cause without end
	reports    atomic.Int64          // failures logged there
	caused     *pace.Sources[string] // failures by the peer that causes them
	unreported atomic.Int64          // those that were too many

	ctx      context.Context // ends when Close begins
	cancel   context.CancelCauseFunc
	work     sync.WaitGroup // run, and the goroutines of links
	handlers *workers       // handlers and callbacks of the application
	notices  notices
	inboxes  *allowance
	calls    calls
	ids      requestIDs
	done     chan struct{}
	turn     chan struct{} // one-slot semaphore: held by the Broadcast that is writing
	buffers  sync.Pool     // of *[]byte: messages on their way to the link
	wrappers wrappers
	drops    drops
	own      ownCard

	listen sync.Mutex // the sidecar is told of one change of services after the other

	// Order of locks: own.mu, listen, mu, the link's, inbox.mu, calls.mu, notices.mu, workers.mu.
	// No handler or callback runs with any of them held.
	mu        sync.Mutex
	err       error // why done is closed
	unsent    error // an *UnsentError, if not everything was sent by then
	current   *ipc
	sidecars  int // that have begun
	lostDrops int // by sidecars before this one
	peers     map[string]*peer
	waiters   map[string][]*waiter
	refused   map[string]error // peers whose identity was refused, with the reason
	byType    map[string]Handler
	quicks    map[string]*quickness // of the handlers in byType
	services  map[string]*listener  // changed with listen held, too
	signaling SignalingStatus
	signaled  chan struct{} // closed when signaling changes
}

// New starts a sidecar and returns once it responds, within 5 s if ctx has no
// deadline. The connection to the signaling server is made in the background;
// with Config.WaitSignaling New blocks until it is there, for as long as ctx
// allows. Once New has returned, the end of ctx has no effect: Close ends the
// mesh. The contexts of handlers have the values of ctx.
//
// Errors are a *ConfigError, a *StartError, ErrNoSidecarMain, or with
// WaitSignaling an error that wraps ErrRefused, ErrMisconfigured, ErrReplaced,
// ErrIDInUse or the cause of ctx.
func New(ctx context.Context, cfg Config) (*Mesh, error) { return newMesh(ctx, cfg, launch) }

// newMesh is New, with sidecars that are started by launch.
func newMesh(ctx context.Context, cfg Config, launch func(context.Context, *Config, sidecar.Settings) (*launched, error)) (*Mesh, error) {
	if err := checkSidecarMain(); err != nil {
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
		cfg: cfg, settings: set, limits: set.Limits, launch: launch, log: cfg.Logger, outside: logs.NewOutside(cfg.Logger, logs.AgentBurst),
		done:      make(chan struct{}),
		handlers:  newWorkers(),
		caused:    pace.NewSources[string](causedRate),
		turn:      make(chan struct{}, 1),
		peers:     make(map[string]*peer),
		waiters:   make(map[string][]*waiter),
		refused:   make(map[string]error),
		byType:    make(map[string]Handler),
		quicks:    make(map[string]*quickness),
		signaling: SignalingStatus{State: SignalingConnecting},
		signaled:  make(chan struct{}),
	}
	m.notices.m = m
	m.inboxes = newAllowance(m.limits.MaxMessage, func() {
		if m.ctx.Err() == nil {
			m.handlers.run(m.settleInboxes)
		}
	})
	m.wrappers = m.wrap(cfg.Interceptors)
	for typ, h := range cfg.Handlers {
		m.byType[typ] = m.wrappers.handler(h)
	}
	m.ctx, m.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	m.own.card = cfg.Card.clone()
	if m.own.text, err = cfg.Card.encode(m.queries()); err != nil {
		return nil, &ConfigError{Field: "Card", Err: err}
	}
	first, err := m.start(ctx, startTimeout)
	if err != nil {
		m.cancel(err)
		m.work.Wait()
		m.handlers.end()
		return nil, err
	}
	m.work.Go(func() { m.run(first) })
	if cfg.WaitSignaling {
		if err := m.waitSignaling(ctx); err != nil {
			_ = m.Close() // the reason to close is the error that counts
			return nil, err
		}
	}
	return m, nil
}

// A Handler handles messages of one type. For a request its reply, encoded as by
// encoding/json, becomes the payload of the response; a nil reply becomes {}. It is
// encoded when the peer takes it, so it must not be changed after the handler has
// returned. The handler's error reaches the requester as a *RemoteError. For a message
// that wants no response the reply is dropped, and the error is reported to
// Config.OnError. A panic is logged and reported; the requester learns only that there
// was an internal error. ctx ends when the requester gives up, when the link to the peer
// ends and when the mesh closes; the handler must return then.
//
// Messages that want no response are handled one at a time per peer, in order;
// requests are handled concurrently. A handler may call any method of Mesh, Close
// included. It gets the Mesh from Message.Mesh, since it may run before New has
// returned.
type Handler func(ctx context.Context, msg *Message) (reply any, err error)

var errNilHandler = errors.New("the handler is nil")

// Handle registers the handler for a message type, or with type "" the one for
// every type that has none of its own. It returns ErrDuplicateHandler if the type
// has one already, ErrInvalid if h is nil, and ErrClosed or the other reason (see
// Err) once the mesh ends. Messages that arrived before are not kept for it: use
// Config.Handlers for types that peers may send at once.
func (m *Mesh) Handle(typ string, h Handler) error {
	if h == nil {
		return fmt.Errorf("%w: Handle(%q): %w", ErrInvalid, typ, errNilHandler)
	}
	if err := m.handleType(typ, h); err != nil {
		return err
	}
	if strings.HasPrefix(typ, queryPrefix) {
		m.queryHandled()
	}
	return nil
}

func (m *Mesh) handleType(typ string, h Handler) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return m.closedError()
	}
	if m.byType[typ] != nil {
		return fmt.Errorf("%w: type %q", ErrDuplicateHandler, typ)
	}
	m.byType[typ] = m.wrappers.handler(h)
	return nil
}

// handler returns the handler for a type, nil if there is none.
func (m *Mesh) handler(typ string) Handler {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h := m.byType[typ]; h != nil {
		return h
	}
	if typ == wire.MessagePing {
		return nil // handle responds to it
	}
	return m.byType[""]
}

// quick returns how fast the handler for a type is.
func (m *Mesh) quick(typ string) *quickness {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byType[typ] == nil && typ != wire.MessagePing {
		typ = ""
	}
	q := m.quicks[typ]
	if q == nil {
		q = new(quickness)
		m.quicks[typ] = q
	}
	return q
}

// handles reports whether there is a handler for just that type.
func (m *Mesh) handles(typ string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.byType[typ] != nil
}

// Done returns a channel that is closed when the mesh has ended (by Close,
// because its sidecar kept crashing, or because it was replaced) and nothing of
// it is left: the last handler or callback has returned, too.
func (m *Mesh) Done() <-chan struct{} { return m.done }

// Err returns nil until Done is closed, then why the mesh ended: ErrClosed after
// Close, or an error that wraps ErrCrashLoop, ErrReplaced or ErrIDInUse.
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

// Close ends the mesh: what was accepted is sent, for up to Config.DrainTimeout,
// peers are told, the sidecar ends. Pending operations fail with ErrClosed, and the
// contexts of handlers end. Close blocks until every goroutine, file and process of
// the mesh is gone, for 4 s or so more than DrainTimeout at most. It may be called at
// any time, repeatedly, and from several goroutines.
//
// The error is nil, or an *UnsentError (ErrUnsent) that says which peers may not
// have everything that was sent to them; those that have left meanwhile are not told,
// and nothing is where the mesh had ended before (Err). A sidecar that knows only the
// base protocol cannot tell that: with one the error is nil once it has read
// everything.
//
// Close does not block on code of the application, handlers and callbacks that
// still run, so it may be called from one of them. To block until they have
// returned, receive from [Mesh.Done] after Close, not in a handler.
func (m *Mesh) Close() error {
	m.cancel(ErrClosed)
	m.work.Wait()
	if !m.handlers.busy() {
		<-m.done
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.unsent
}

// closedError returns why the mesh takes no more work.
func (m *Mesh) closedError() error {
	if err := context.Cause(m.ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return ErrClosed
}
