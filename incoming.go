package mesh

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// What arrives from the sidecar.

// read handles events until the connection ends.
func (c *ipc) read() {
	defer close(c.ended)
	defer c.link.Close()
	c.link.Serve(c.take)
}

// take handles one event, or what was wrong with it; it keeps nothing of the line.
// It never blocks, and must write control lines only, no messages: a sidecar in this
// process may hold locks then.
func (c *ipc) take(line []byte, err error) bool {
	if err == nil {
		err = wire.ParseEvent(line, c.limits, &c.line)
	} else if wire.BadLine(err) == nil {
		c.readErr = err
		return false
	}
	if err == nil {
		err = c.event(&c.line)
	}
	if err != nil {
		// This does not end the link: the next line may be fine.
		c.m.report(fmt.Errorf("mesh: line from the sidecar rejected: %w", err))
	}
	return !c.unfit
}

func (c *ipc) event(e *wire.Line) error {
	m := c.m
	if !c.trusted && ofPeer(e.Type) {
		return nil // of peers whose identity nobody has checked as this agent was told to
	}
	if e.Type == wire.TypeMessage {
		c.receive(e.Peer, c.types.of(e.Message.Type), &e.Message)
		return nil
	}
	peer := string(e.Peer)
	switch e.Type {
	case wire.TypePeerConnected:
		key, card, err := wire.DecodePeerConnected(e.Payload)
		if err != nil {
			return err
		}
		m.peerConnected(peer, key, decodeCard(card))
	case wire.TypeCard:
		return c.onCard(peer, e.Payload)
	case wire.TypePeerDisconnected:
		m.peerDisconnected(peer, ErrPeerGone)
	case wire.TypePause:
		m.setStop(peer, e.Stop)
	case wire.TypeResume:
		m.setStop(peer, wire.StopNothing)
	case wire.TypeCancel:
		if p := m.peer(peer); p != nil {
			p.inbox.cancel(string(e.RequestID))
		}
	case wire.TypeReady:
		return c.onReady(e.Payload)
	case wire.TypePeerList:
		return c.onPeerList(e.Payload)
	case wire.TypeSignaling:
		return c.onSignaling(e.Payload)
	case wire.TypeError:
		return c.onError(e.Payload)
	case wire.TypeDrained:
		return c.onDrained(e.Payload)
	case wire.TypePong:
		c.onPong()
	case wire.TypePath:
		return c.onPath(e.Payload)
	case wire.TypeStats:
		return c.stats.settle(e.Payload)
	case wire.TypeListening, wire.TypeStream, wire.TypeStreamEnd, wire.TypeStreamStop:
		return c.onStream(e)
	}
	return nil
}

// onStream handles what the sidecar says of a stream.
func (c *ipc) onStream(e *wire.Line) error {
	w, err := wire.DecodeStream(e.Payload)
	switch {
	case err != nil:
		return err
	case e.Type == wire.TypeListening:
		c.m.listening(w.Service)
	case e.Type == wire.TypeStream:
		c.offered(w)
	default:
		c.streamEnded(e.Type, w)
	}
	return nil
}

// ofPeer reports whether an event comes from a peer.
func ofPeer(t wire.Type) bool {
	return t == wire.TypeMessage || t == wire.TypePeerConnected || t == wire.TypeCancel || t == wire.TypeStream || t == wire.TypePath || t == wire.TypeCard
}

// A typeName makes strings of the types of messages. Most messages are of the same type
// as the one before.
type typeName struct{ last string }

func (n *typeName) of(b []byte) string {
	if string(b) != n.last {
		n.last = string(b)
	}
	return n.last
}

// receive takes a message from a peer: the response that a call waits for, or
// work for a handler. Responses are matched here, on the read path, so that a
// handler may itself wait for one. They are no queue: one for which no call waits
// is dropped, unless the application has a handler for it.
func (c *ipc) receive(from []byte, typ string, w *wire.Message) {
	m := c.m
	p := m.peerOf(from)
	if p == nil {
		m.report(&PeerError{Op: "receive", Type: typ, Peer: string(from), RequestID: string(w.RequestID), Err: ErrNotConnected})
		return
	}
	if len(w.RequestID) > 0 && wire.IsChunk(typ) && m.receiveChunk(p, typ, w) {
		return
	}
	if len(w.RequestID) > 0 && wire.CanRespond(typ) {
		if call := m.calls.take(p.id, w.RequestID); call != nil {
			w.Detach()
			call.end(result{reply: m.received(p.id, typ, call.key.id, w)})
			return
		}
	}
	p.inbox.message(typ, w, c)
}

func (m *Mesh) peerOf(id []byte) *peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peers[string(id)]
}

func (c *ipc) onReady(payload []byte) error {
	ready, err := wire.DecodeHello(payload)
	if err != nil {
		return err
	}
	c.start(ready)
	return nil
}

// start begins the use of a sidecar, unless it does not demand of peers what it should.
func (c *ipc) start(ready wire.Hello) {
	c.readyOnce.Do(func() {
		if want := c.m.settings.Identity.Demand(); want != "" && want != ready.Policy {
			c.refused = &ConfigError{Field: "Identity.Policy", Value: want, Err: fmt.Errorf(
				"the sidecar has the policy %s; start it with the same settings, as with -identity-policy", cmp.Or(ready.Policy, "off"))}
			c.unfit = true
			return
		}
		c.trusted = true
		c.features, c.maxMessage, c.secret = ready.Features, ready.MaxMessage, ready.Secret
		c.windowed = slices.Contains(c.features, wire.FeaturePing)
		c.m.inboxes.pauses.Store(slices.Contains(c.features, wire.FeatureFlow))
		c.m.begin(c)
		close(c.ready)
		c.m.tellServices() // once has knows of streams
		c.m.retellCard(c)
	})
}

// onPeerList handles the response to list_peers, with the peers that were there
// before this agent. If no ready came before it, the sidecar knows the base
// protocol only.
func (c *ipc) onPeerList(payload []byte) error {
	list, err := wire.DecodePeerList(payload)
	if err != nil {
		return err
	}
	c.start(wire.Hello{})
	if c.unfit {
		return nil
	}
	for i, p := range list.Peers {
		key := ""
		if list.Keys != nil {
			key = list.Keys[i]
		}
		c.m.peerConnected(p, key, nil) // its card follows
	}
	return nil
}

func (c *ipc) onDrained(payload []byte) error {
	unsent, err := wire.DecodeUnsent(payload)
	if err != nil {
		return err
	}
	c.drainedOnce.Do(func() {
		c.unsent = unsent
		close(c.drained)
	})
	return nil
}

func (c *ipc) onSignaling(payload []byte) error {
	st, err := wire.DecodeSignaling(payload)
	if err != nil {
		return err
	}
	status := SignalingStatus{State: SignalingState(st.State), PeerID: st.PeerID}
	switch {
	case status.State == SignalingReplaced:
		if status.Err = ErrReplaced; st.Code == wire.SignalingInUse {
			status.Err = ErrIDInUse
		}
		c.replacedOnce.Do(func() {
			c.successor = status.Err
			close(c.replaced)
		})
	case status.State == SignalingRefused:
		status.Err = because(ErrRefused, errors.New(st.Error))
	case st.Code == wire.SignalingMisconfigured:
		status.Err = because(ErrMisconfigured, errors.New(st.Error))
	case st.Code == wire.SignalingIdentity:
		status.Err = because(ErrIdentity, errors.New(st.Error))
	case st.Error != "":
		status.Err = errors.New("mesh: no signaling connection: " + st.Error)
	}
	c.m.setSignaling(status)
	return nil
}

// onError gives an error to the pending request or Connect that it is about, or
// reports it if there is none.
func (c *ipc) onError(payload []byte) error {
	e, err := wire.DecodeErrorEvent(payload)
	if err != nil {
		return err
	}
	cause := because(codeError(e.Code), errors.New(e.Message))
	switch {
	case e.Code == wire.CodeUnauthorized:
		c.refused = cause
		return nil
	case e.Code == wire.CodeInternal && e.Command == "" && e.TargetPeer == "":
		c.m.report(cause) // about the sidecar itself
		return nil
	case e.Command == wire.TypeConnect.String():
		if e.Code == wire.CodeIdentity {
			c.m.noteRefused(e.TargetPeer, cause)
		}
		if c.m.connectFailed(e.TargetPeer, cause) {
			return nil
		}
	case e.RequestID != "":
		if c.m.calls.fail(e.TargetPeer, e.RequestID, cause) {
			return nil
		}
	}
	if e.TargetPeer == "" {
		c.m.report(because(errors.New("mesh: the sidecar rejected a line"), cause))
		return nil
	}
	c.m.report(&PeerError{Op: cmp.Or(e.Command, "command"), Peer: e.TargetPeer, RequestID: e.RequestID, Err: cause})
	return nil
}
