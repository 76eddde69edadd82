package mesh

import (
	"context"
	"crypto/subtle"
	"errors"
	"io"
	"slices"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// What an agent says to its sidecar.

// maxEcho is the longest name out of a bad line that an error repeats.
const maxEcho = 1 << 10

// read handles the agent's commands until the agent is gone.
func (s *sidecar) read(ctx context.Context) error {
	var cmd wire.Line
	var end error
	greeted := false
	s.link.serve(s.mayWait, func(line []byte, err error) bool {
		if err == nil {
			err = wire.ParseCommand(line, s.limits, &cmd)
		} else {
			cmd = wire.Line{}
		}
		var bad *wire.Error
		if err != nil {
			if bad = badLine(err); bad == nil {
				end = s.agentGone(ctx, err)
				return false
			}
		}
		if !greeted && s.set.Token != "" && !s.authorized(&cmd, bad) {
			if bad == nil && cmd.Type == wire.TypeHello {
				s.terms.Store(&terms{features: features})
			}
			s.tellError(wire.ErrorEvent{Code: wire.CodeUnauthorized, Message: "the first line must be a hello with this sidecar's token"})
			end = errUnauthorized
			return false
		}
		if bad != nil {
			s.rejectLine(bad, &cmd)
		} else {
			s.command(ctx, &cmd)
		}
		if !greeted {
			greeted = true
			close(s.spoke)
		}
		return true
	})
	return end
}

// mayWait tells whether a command may have to wait: see post.
func (s *sidecar) mayWait() bool { return s.congested.Load() > 0 }

// badLine returns what is wrong with a line, nil if it is the link that broke.
func badLine(err error) *wire.Error {
	var bad *wire.Error
	errors.As(err, &bad)
	return bad
}

// agentGone follows the end of the link. However it went, that is no error.
func (s *sidecar) agentGone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if !errors.Is(err, io.EOF) {
		s.log.Debug().Err(err).Msg("link to the agent broke")
	}
	return nil
}

func (s *sidecar) authorized(cmd *wire.Line, bad *wire.Error) bool {
	if bad != nil || cmd.Type != wire.TypeHello {
		return false
	}
	hello, err := wire.DecodeHello(cmd.Payload)
	return err == nil && subtle.ConstantTimeCompare([]byte(hello.Token), []byte(s.set.Token)) == 1
}

// command carries out one command. It does not wait, but for what post says: a
// full queue towards one peer must not keep the agent from the others.
func (s *sidecar) command(ctx context.Context, cmd *wire.Line) {
	switch cmd.Type {
	case wire.TypeSend:
		s.send(cmd)
	case wire.TypeBroadcast:
		s.broadcast(cmd)
	case wire.TypeListPeers:
		s.listPeers()
	case wire.TypeConnect:
		s.node.Connect(string(cmd.Peer))
	case wire.TypeHello:
		s.hello(cmd)
	case wire.TypePause, wire.TypeResume:
		if r := s.remote(cmd.Peer); r != nil {
			r.setHalted(cmd.Type == wire.TypePause)
		}
	case wire.TypeCancel:
		if r := s.remote(cmd.Peer); r != nil {
			r.peer.Cancel(string(cmd.RequestID))
		}
	case wire.TypeDrain:
		s.drain(ctx)
	}
}

func (s *sidecar) listPeers() {
	peers, listed := s.peers(), 0
	s.event(nil, func(b []byte) []byte {
		b, listed = s.terms.Load().peerList(b, peers)
		return b
	})
	if listed < len(peers) {
		s.noise.Warn().Int("peers", len(peers)).Int("listed", listed).
			Msgf("peer_list cut short: an agent that has not said hello gets no line over %d bytes", wire.BaseMaxLine)
	}
}

func (s *sidecar) send(cmd *wire.Line) {
	r := s.remote(cmd.Peer)
	if r == nil {
		s.failCommand(cmd, cmd.Peer, &wire.Error{Code: wire.CodePeerNotConnected, Text: "no link to " + string(cmd.Peer)})
		return
	}
	if err := s.post(r, cmd.Message.Raw); err != nil {
		s.failCommand(cmd, cmd.Peer, err)
	}
}

// post queues a message for a peer. An agent that knows pause overruns the queue
// only in the moment until it has read the pause, and for that moment it waits.
func (s *sidecar) post(r *remote, msg []byte) error {
	err := r.peer.Send(msg)
	if err == nil {
		return nil
	}
	if w := (*wire.Error)(nil); errors.As(err, &w) && w.Code == wire.CodeQueueFull && s.knows(wire.FeatureFlow) && r.awaitRoom() {
		err = r.peer.Send(msg)
	}
	return err
}

func (s *sidecar) broadcast(cmd *wire.Line) {
	var except []string
	if cmd.Except != nil {
		except, _ = wire.DecodeStrings(cmd.Except) // the parser has checked it
	}
	s.mu.RLock()
	to := make([]*remote, 0, len(s.remotes))
	for id, r := range s.remotes {
		if !slices.Contains(except, id) {
			to = append(to, r)
		}
	}
	s.mu.RUnlock()
	for _, r := range to {
		if err := s.post(r, cmd.Message.Raw); err != nil {
			s.failCommand(cmd, []byte(r.peer.ID()), err)
		}
	}
}

func (s *sidecar) hello(cmd *wire.Line) {
	h, err := wire.DecodeHello(cmd.Payload)
	if err != nil {
		s.failCommand(cmd, nil, &wire.Error{Code: wire.CodeInvalidField, Text: err.Error()})
		return
	}
	s.event(nil, func(b []byte) []byte {
		return wire.AppendReady(b, wire.Hello{Protocol: wire.ProtocolVersion, Features: features, MaxMessage: s.limits.MaxMessage})
	})
	s.terms.Store(&terms{features: h.Features, maxMessage: h.MaxMessage}) // ready is the first line that needs them
	s.tellStatus()
}

// drain answers drained when everything is with the peers, or after a bound.
func (s *sidecar) drain(ctx context.Context) {
	if s.draining.Swap(true) {
		return // the one under way answers
	}
	s.work.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, drainTimeout)
		defer cancel()
		if err := s.node.Flush(ctx); err != nil {
			s.log.Warn().Err(err).Msg("drain ended early")
		}
		s.draining.Store(false)
		s.tell(wire.FeatureDrain, wire.AppendDrained)
	})
}

// rejectLine reports a line that could not be read, with what was read of it.
func (s *sidecar) rejectLine(err *wire.Error, cmd *wire.Line) {
	s.noise.Warn().Str("code", string(err.Code)).Int64("count", s.badLines.Add(1)).
		Bytes("command", cmd.Name).Err(err).Msg("line from the agent rejected")
	id := cmd.Message.RequestID
	if cmd.Type == wire.TypeCancel {
		id = cmd.RequestID
	}
	s.tellError(wire.ErrorEvent{Code: err.Code, Message: err.Text, Command: brief(cmd.Name), TargetPeer: brief(cmd.Peer), RequestID: brief(id)})
}

// failCommand reports a command that could not be carried out for a peer.
func (s *sidecar) failCommand(cmd *wire.Line, peer []byte, err error) {
	e := wire.ErrorEvent{Code: wire.CodeInternal, Message: err.Error(), Command: cmd.Type.String(),
		TargetPeer: string(peer), RequestID: string(cmd.Message.RequestID)}
	if w := (*wire.Error)(nil); errors.As(err, &w) {
		e.Code, e.Message = w.Code, w.Text
	}
	s.noise.Warn().Str("code", string(e.Code)).Int64("dropped", s.dropped.Add(1)).Str("command", e.Command).
		Str("peer", e.TargetPeer).Str("request_id", e.RequestID).Str("reason", e.Message).Msg("command failed")
	s.tellError(e)
}

// brief is a name out of a bad line, or nothing if it is no sensible name.
func brief(b []byte) string {
	if len(b) > maxEcho {
		return ""
	}
	return string(b)
}
