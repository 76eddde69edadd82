package mesh

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"

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

	ctx      context.Context // ends when Close begins
	cancel   context.CancelCauseFunc
	work     sync.WaitGroup // run, readers, writers
	handlers sync.WaitGroup // handlers and callbacks of the application
	notices  notices
	calls    calls
	done     chan struct{}

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
}

// A waiter waits for a peer's link, in Connect or WaitPeer.
type waiter struct {
	connect bool       // fails with the sidecar's answer to connect
	done    chan error // buffered 1
}

// A PeerEvent tells that a peer came or went.
type PeerEvent struct {
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
		cfg: cfg, settings: set, limits: set.limits(), log: cfg.Logger,
		done:      make(chan struct{}),
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
// one already and ErrInvalid if h is nil. Messages that came before are not
// kept for it: use Config.Handlers for types that peers may send at once.
func (m *Mesh) Handle(typ string, h Handler) error {
	if h == nil {
		return fmt.Errorf("%w: Handle(%q): %w", ErrInvalid, typ, errNilHandler)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
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

// Send gives a message to one peer. It returns nil once the message is on its
// way to a peer whose link is live: it will arrive, in order and once, unless
// the peer goes (Config.OnPeer) or the message fails later (Config.OnError).
// It waits, under ctx, while that peer is congested. Errors are *PeerError.
func (m *Mesh) Send(ctx context.Context, peer string, msg Message) error {
	if err := m.post(ctx, peer, &msg, false); err != nil {
		return &PeerError{Op: "send", Peer: peer, RequestID: msg.RequestID, Err: err}
	}
	return nil
}

// Broadcast gives a message to every peer whose link is live. Peers that keep
// up get it at once; it waits, under ctx, for the congested ones. The peers not
// reached are in a *BroadcastError. With no peers it returns nil.
func (m *Mesh) Broadcast(ctx context.Context, msg Message) error {
	raw, err := msg.encode(m.limits)
	if err != nil {
		return fmt.Errorf("mesh: broadcast: %w", err)
	}
	s, ready, paused, err := m.audience()
	if err != nil {
		return fmt.Errorf("mesh: broadcast: %w", err)
	}
	var failed []*PeerError
	if len(ready) > 0 {
		// The line names the peers to leave out: sidecar and agent may differ
		// for a moment on who is paused, and nobody shall get it twice or never.
		err := s.link.write(ctx, func(b []byte) []byte { return wire.AppendBroadcast(b, raw, paused) })
		for _, id := range ready {
			if err != nil {
				failed = append(failed, &PeerError{Op: "broadcast", Peer: id, Err: err})
			}
		}
	}
	failed = append(failed, m.postAll(ctx, paused, raw)...)
	if len(failed) == 0 {
		return nil
	}
	slices.SortFunc(failed, func(a, b *PeerError) int { return compare(a.Peer, b.Peer) })
	return &BroadcastError{Failed: failed}
}

// audience splits the live peers into those that keep up and those that are
// congested.
func (m *Mesh) audience() (s *session, ready, paused []string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return nil, nil, nil, m.closedError()
	}
	for id, p := range m.peers {
		switch {
		case !p.live:
		case p.stop == stopNothing:
			ready = append(ready, id)
		default:
			paused = append(paused, id)
		}
	}
	return m.current, ready, paused, nil
}

// postAll waits for congested peers side by side.
func (m *Mesh) postAll(ctx context.Context, peers []string, raw []byte) []*PeerError {
	errs := make([]error, len(peers))
	var wg sync.WaitGroup
	for i, id := range peers {
		wg.Go(func() { errs[i] = m.postRaw(ctx, id, raw, false) })
	}
	wg.Wait()
	var failed []*PeerError
	for i, id := range peers {
		if errs[i] != nil {
			failed = append(failed, &PeerError{Op: "broadcast", Peer: id, Err: errs[i]})
		}
	}
	return failed
}

// Request sends a message and waits for its response. Without a deadline in
// ctx it waits Config.RequestTimeout. It ends at once when the peer goes
// (ErrPeerGone), the sidecar is lost (ErrSidecarLost), the message cannot be
// sent, or the mesh closes (ErrClosed); an error that the peer's handler
// returned is a *RemoteError. All are wrapped in a *PeerError. When the caller
// gives up, the context of the peer's handler ends. A request that failed may
// have been carried out all the same.
func (m *Mesh) Request(ctx context.Context, peer string, msg Message) (*Message, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, m.cfg.RequestTimeout)
		defer cancel()
	}
	if msg.RequestID == "" {
		msg.RequestID = newRequestID()
	}
	reply, err := m.request(ctx, peer, &msg)
	if err != nil {
		return nil, &PeerError{Op: "request", Peer: peer, RequestID: msg.RequestID, Err: err}
	}
	return reply, nil
}

func (m *Mesh) request(ctx context.Context, peer string, msg *Message) (*Message, error) {
	call, err := m.calls.add(peer, msg.RequestID)
	if err != nil {
		return nil, err
	}
	if err := m.post(ctx, peer, msg, false); err != nil {
		m.calls.drop(call)
		return nil, err
	}
	var r result
	select {
	case r = <-call.done:
	case <-ctx.Done():
		if m.calls.drop(call) {
			m.sendCancel(peer, msg.RequestID)
			return nil, context.Cause(ctx)
		}
		r = <-call.done
	}
	if r.err != nil {
		return nil, r.err
	}
	if text := r.reply.failure(); text != "" {
		return nil, &RemoteError{Text: text, Reply: r.reply}
	}
	return r.reply, nil
}

// newRequestID draws 12 hex digits: what agents in other languages draw, and
// not to be guessed by a peer.
func newRequestID() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails, as documented
	return hex.EncodeToString(b[:])
}

func (m *Mesh) sendCancel(peer, id string) {
	s := m.session()
	if s == nil || !s.has(wire.FeatureCancel) {
		return
	}
	// An error means that the link is gone, and the request with it.
	_ = s.link.writeNow(nil, func(b []byte) []byte { return wire.AppendCancelCommand(b, peer, id) })
}

// post encodes a message and gives it to the sidecar as soon as the peer takes it.
func (m *Mesh) post(ctx context.Context, peer string, msg *Message, reply bool) error {
	if peer == "" {
		return fmt.Errorf("%w: the peer id is empty", ErrInvalid)
	}
	raw, err := msg.encode(m.limits)
	if err != nil {
		return err
	}
	return m.postRaw(ctx, peer, raw, reply)
}

func (m *Mesh) postRaw(ctx context.Context, peer string, raw []byte, reply bool) error {
	s, err := m.await(ctx, peer, reply)
	if err != nil {
		return err
	}
	return s.link.write(ctx, func(b []byte) []byte { return wire.AppendSend(b, peer, raw) })
}

// await waits until the peer takes new work, or a reply, and returns the
// session to write to. Replies pass a peer that is busy: it waits for them.
func (m *Mesh) await(ctx context.Context, id string, reply bool) (*session, error) {
	missing := ErrUnknownPeer
	for {
		m.mu.Lock()
		p := m.peers[id]
		switch {
		case m.ctx.Err() != nil:
			defer m.mu.Unlock()
			return nil, m.closedError()
		case m.current == nil:
			m.mu.Unlock()
			return nil, ErrSidecarLost
		case p == nil || !p.live:
			m.mu.Unlock()
			return nil, missing
		case p.stop == stopNothing || reply && p.stop == stopNewWork:
			defer m.mu.Unlock()
			return m.current, nil
		}
		changed := p.changed
		m.mu.Unlock()
		missing = ErrPeerGone
		select {
		case <-changed:
		case <-m.ctx.Done():
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Connect asks for a link to a peer now, and waits until it is live. A peer
// that the signaling server does not know fails at once with ErrUnknownPeer.
// Agents on the mesh connect to each other by themselves; Connect is for
// making sure, and for not waiting until the next attempt.
func (m *Mesh) Connect(ctx context.Context, peer string) error {
	if err := m.waitLink(ctx, peer, true); err != nil {
		return &PeerError{Op: "connect", Peer: peer, Err: err}
	}
	return nil
}

// WaitPeer waits until the link to a peer is live, however long that peer takes
// to appear.
func (m *Mesh) WaitPeer(ctx context.Context, peer string) error {
	if err := m.waitLink(ctx, peer, false); err != nil {
		return &PeerError{Op: "wait", Peer: peer, Err: err}
	}
	return nil
}

func (m *Mesh) waitLink(ctx context.Context, id string, connect bool) error {
	if id == "" {
		return fmt.Errorf("%w: the peer id is empty", ErrInvalid)
	}
	w := &waiter{connect: connect, done: make(chan error, 1)}
	m.mu.Lock()
	s, p := m.current, m.peers[id]
	var err error
	switch {
	case m.ctx.Err() != nil:
		err = m.closedError()
	case connect && id == m.signaling.PeerID:
		err = fmt.Errorf("%w: %q is this agent itself", ErrInvalid, id)
	case p != nil && p.live:
		m.mu.Unlock()
		return nil
	case connect && s == nil:
		err = ErrSidecarLost
	default:
		m.waiters[id] = append(m.waiters[id], w)
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	defer m.forget(id, w)
	if connect {
		if _, ok := ctx.Deadline(); !ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, m.cfg.RequestTimeout)
			defer cancel()
		}
		if err := s.link.write(ctx, func(b []byte) []byte { return wire.AppendConnect(b, id) }); err != nil {
			return err
		}
	}
	select {
	case err := <-w.done:
		return err
	case <-m.ctx.Done():
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.closedError()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (m *Mesh) forget(id string, w *waiter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiters[id] = slices.DeleteFunc(m.waiters[id], func(x *waiter) bool { return x == w })
	if len(m.waiters[id]) == 0 {
		delete(m.waiters, id)
	}
}

// closedError is why the mesh takes no more work; called with mu held.
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

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
