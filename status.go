package mesh

import (
	"context"
	"fmt"
	"net/url"
)

// A SignalingState is the state of the connection to the signaling server. Links
// to peers live on without it; only new ones need it.
type SignalingState string

const (
	// SignalingConnecting means that there is no connection and one is being made.
	SignalingConnecting SignalingState = "connecting"
	// SignalingConnected means that this agent is registered as PeerID.
	SignalingConnected SignalingState = "connected"
	// SignalingRefused means that the server does not accept the API key. The
	// sidecar goes on trying, slowly.
	SignalingRefused SignalingState = "refused"
	// SignalingReplaced means that another instance with the same API key has
	// taken over, or, with Config.IfFree, that another has the peer id: the mesh has
	// ended, with ErrReplaced or ErrIDInUse.
	SignalingReplaced SignalingState = "replaced"
	// SignalingClosed means that the mesh has ended.
	SignalingClosed SignalingState = "closed"
)

// A SignalingStatus is the state of signaling, with the reason if it is not
// connected.
type SignalingStatus struct {
	State  SignalingState
	PeerID string // this agent's own, once known
	// Err is why there is no connection, nil if there is one or none was tried
	// yet. It wraps ErrRefused if State is SignalingRefused, and ErrMisconfigured
	// if no retry can mend it.
	Err error
}

// ID returns this agent's own peer id, as the signaling server has assigned it;
// "" until it has.
func (m *Mesh) ID() string { return m.Signaling().PeerID }

// SidecarPID returns the process id of the running sidecar, or 0 if this mesh has
// not started a process or none is running.
func (m *Mesh) SidecarPID() int {
	if c := m.ipc(); c != nil {
		return c.side.pid
	}
	return 0
}

// Signaling returns the state of the connection to the signaling server.
func (m *Mesh) Signaling() SignalingStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.signaling
}

// setSignaling notes a new state and tells Config.OnSignaling.
func (m *Mesh) setSignaling(st SignalingStatus) {
	m.mu.Lock()
	if st.PeerID == "" {
		st.PeerID = m.signaling.PeerID
	}
	m.signaling = st
	close(m.signaled)
	m.signaled = make(chan struct{})
	for _, w := range m.waiters[st.PeerID] { // from before this id was known
		w.end(errOneself)
	}
	m.mu.Unlock()
	if f := m.cfg.OnSignaling; f != nil {
		m.notices.add("", func() { f(st) })
	}
}

// waitSignaling blocks until the signaling server has accepted this peer, and
// fails if that cannot be expected, or when ctx or the mesh ends.
func (m *Mesh) waitSignaling(ctx context.Context) error {
	for {
		m.mu.Lock()
		st, changed := m.signaling, m.signaled
		m.mu.Unlock()
		switch {
		case st.State == SignalingConnected:
			return nil
		case hopeless(st.Err):
			return st.Err
		}
		select {
		case <-changed:
		case <-m.ctx.Done():
			return m.closedError()
		case <-ctx.Done():
			err := fmt.Errorf("mesh: no connection to %s: %w", m.signalingServer(), context.Cause(ctx))
			if st.Err != nil {
				err = fmt.Errorf("%w; last error: %w", err, inner{st.Err})
			}
			return err
		}
	}
}

// signalingServer names the server that the sidecar connects to, for errors.
func (m *Mesh) signalingServer() string {
	if m.cfg.Mode == Attach {
		return "the sidecar's signaling server" // which its own settings name
	}
	return "the signaling server at " + publicURL(m.cfg.SignalingURL)
}

// withSignaling adds the state of signaling to the error of waiting for a peer: it
// may be what keeps the peer from being found.
func (m *Mesh) withSignaling(err error) error {
	if st := m.Signaling(); st.State != SignalingConnected && st.Err != nil {
		return fmt.Errorf("%w; signaling is %s: %w", err, st.State, inner{st.Err})
	}
	return err
}

// publicURL returns a URL without what may be secret.
func publicURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "the signaling URL" // cannot happen: New has checked it
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
