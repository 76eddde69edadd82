package sidecar

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// What the agent says to its sidecar.

// maxEcho is the length in bytes of the longest name in a bad line that an error repeats.
const maxEcho = 1 << 10

// command carries out one command. It never blocks: a full queue towards one peer must not keep the agent
// from the others.
func (s *Sidecar) command(ctx context.Context, cmd *wire.Line) {
	switch cmd.Type {
	case wire.TypeSend:
		s.send(cmd)
	case wire.TypeBroadcast:
		s.broadcast(cmd)
	case wire.TypeListPeers:
		s.listPeers()
	case wire.TypeConnect:
		s.network.connect(string(cmd.Peer))
	case wire.TypeHello:
		s.hello(cmd)
	case wire.TypePause, wire.TypeResume:
		if p := s.peer(cmd.Peer); p != nil {
			p.setHalted(haltOf(cmd))
		}
	case wire.TypeCancel:
		if p := s.peer(cmd.Peer); p != nil && len(cmd.RequestID) <= wire.MaxCancelID {
			p.gaveUp()
			p.Cancel(string(cmd.RequestID))
		}
	case wire.TypeDrain:
		s.drain(ctx, cmd)
	case wire.TypePing:
		s.pong()
	case wire.TypeStats:
		s.stats()
	case wire.TypeCard:
		s.setCard(cmd)
	case wire.TypeListen, wire.TypeUnlisten, wire.TypeRefuse, wire.TypeStreamEnd:
		s.streamCommand(cmd)
	}
}

// streamCommand carries out a command about streams.
func (s *Sidecar) streamCommand(cmd *wire.Line) {
	w, err := wire.DecodeStream(cmd.Payload)
	switch {
	case err != nil:
	case cmd.Type == wire.TypeRefuse:
		s.refuseStream(w)
	case cmd.Type == wire.TypeStreamEnd:
		s.streams.end(w.Stream, w.Code)
	default:
		err = s.listen(w.Service, cmd.Type == wire.TypeListen)
	}
	if err != nil {
		s.failCommand(cmd, nil, "", err)
	}
}

// listen notes that the agent listens for a service, or no longer does.
func (s *Sidecar) listen(service string, on bool) error {
	err := wire.CheckService(service)
	if err == nil {
		err = s.streams.listen(service, on)
	}
	if err == nil && on {
		s.tell(wire.FeatureStreams, nil, func(b []byte) []byte {
			return wire.AppendStream(b, wire.TypeListening, wire.Stream{Service: service})
		})
	}
	return err
}

func (s *Sidecar) listPeers() {
	list, listed := s.peerList(), 0
	s.event(nil, func(b []byte) []byte {
		b, listed = s.terms.Load().peerList(b, list)
		return b
	})
	s.tellCards(list.Peers)
	if listed < len(list.Peers) {
		s.outside.Warn(fromAgent).Int("peers", len(list.Peers)).Int("listed", listed).
			Msgf("peer_list cut short: an agent that has not said hello gets no line over %d bytes", wire.BaseMaxLine)
	}
}

func (s *Sidecar) setCard(cmd *wire.Line) {
	card, err := wire.DecodeCard(cmd.Payload)
	if err != nil {
		s.failCommand(cmd, nil, "", err)
		return
	}
	s.network.setCard(bytes.Clone(card))
}

func (s *Sidecar) send(cmd *wire.Line) {
	p := s.peer(cmd.Peer)
	if p == nil {
		s.failCommand(cmd, nil, brief(cmd.Peer), &wire.Error{Code: wire.CodePeerNotConnected, Text: "no link to " + logs.Cut(cmd.Peer)})
		return
	}
	s.sendTo(p, cmd)
}

// sendTo sends the message of a command to one peer.
func (s *Sidecar) sendTo(p *peer, cmd *wire.Line) {
	if err := p.send(&cmd.Message); err != nil {
		s.failCommand(cmd, p, p.ID(), err)
	}
}

func (s *Sidecar) broadcast(cmd *wire.Line) {
	var except []string
	if cmd.Except != nil {
		except, _ = wire.DecodeStrings(cmd.Except) // the parser has checked it
	}
	s.mu.RLock()
	to := make([]*peer, 0, len(s.peers))
	for id, p := range s.peers {
		if !slices.Contains(except, id) {
			to = append(to, p)
		}
	}
	s.mu.RUnlock()
	for _, p := range to {
		s.sendTo(p, cmd)
	}
}

func (s *Sidecar) hello(cmd *wire.Line) {
	h, err := wire.DecodeHello(cmd.Payload)
	if err != nil {
		s.failCommand(cmd, nil, "", &wire.Error{Code: wire.CodeInvalidField, Text: err.Error()})
		return
	}
	s.event(nil, func(b []byte) []byte {
		return wire.AppendReady(b, wire.Hello{
			Protocol: wire.ProtocolVersion, Features: wire.Features(), MaxMessage: s.limits.MaxMessage, Policy: s.set.Identity.Demand(),
			Secret: s.secretFor(h.Features),
		})
	})
	if h.Card != nil {
		s.network.setCard(bytes.Clone(h.Card))
	}
	s.terms.Store(&terms{features: h.Features, maxMessage: h.MaxMessage}) // ready is the first line that needs them
	s.tellStatus()
}

// drain responds with drained when the peers have everything, or when the time for that is over, with those that may
// not.
func (s *Sidecar) drain(ctx context.Context, cmd *wire.Line) {
	timeout, err := wire.DecodeDrain(cmd.Payload)
	if err != nil {
		s.failCommand(cmd, nil, "", err)
		return
	}
	if s.draining.Swap(true) {
		return // the one under way responds
	}
	peers := s.livePeers() // some of which may go meanwhile
	s.work.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, cmp.Or(timeout, drainTimeout))
		defer cancel()
		var u wire.Unsent
		var streams sync.WaitGroup // beside the messages: one that is not read would take all the time
		streams.Go(func() {
			s.streams.flush(ctx)
			s.network.flushStreams(ctx)
		})
		bytes := s.network.unsent(ctx)
		streams.Wait()
		for _, id := range slices.Sorted(maps.Keys(bytes)) {
			if p := peers[id]; p != nil {
				u.Peers, u.Messages = append(u.Peers, id), append(u.Messages, p.unsent(bytes[id]))
			}
		}
		if len(u.Peers) > 0 {
			s.outside.Warn(fromAgent).Strs("peers", u.Peers).Ints("messages", u.Messages).Msg("drain ended early: some messages may not have arrived")
		}
		s.draining.Store(false)
		s.tell(wire.FeatureDrain, nil, func(b []byte) []byte { return wire.AppendDrained(b, u) })
	})
}

func (s *Sidecar) livePeers() map[string]*peer {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return maps.Clone(s.peers)
}

// pong responds to a ping, here where every command is carried out, and after the lookup that most of them begin with: a
// sidecar that cannot do its work is not to look alive.
func (s *Sidecar) pong() {
	_ = s.peer(nil) // it has to be able to
	s.tell(wire.FeaturePing, nil, wire.AppendPong)
}

// rejectLine reports a line that could not be read, with what was read of it.
func (s *Sidecar) rejectLine(err *wire.Error, cmd *wire.Line) {
	s.outside.Warn(fromAgent).Str("code", string(err.Code)).Int64("count", s.badLines.Add(1)).
		Str("command", logs.Cut(cmd.Name)).Str("error", logs.Error(err)).Msg("line from the agent rejected")
	id := cmd.Message.RequestID
	if cmd.Type == wire.TypeCancel {
		id = cmd.RequestID
	}
	s.tellError(nil, wire.ErrorEvent{Code: err.Code, Message: err.Text, Command: brief(cmd.Name), TargetPeer: brief(cmd.Peer), RequestID: brief(id)})
}

// failCommand reports a command that could not be carried out for a peer, which is nil if there is no link to it.
func (s *Sidecar) failCommand(cmd *wire.Line, p *peer, id string, err error) {
	e := wire.ErrorEvent{Code: wire.CodeInternal, Message: err.Error(), Command: cmd.Type.String(),
		TargetPeer: id, RequestID: string(cmd.Message.RequestID)}
	if w := (*wire.Error)(nil); errors.As(err, &w) {
		e.Code, e.Message = w.Code, w.Text
	}
	s.outside.Warn(fromAgent).Str("code", string(e.Code)).Int64("dropped", s.dropped.Add(1)).Str("command", e.Command).
		Str("peer", logs.Cut(e.TargetPeer)).Str("request_id", logs.Cut(e.RequestID)).Str("reason", logs.Cut(e.Message)).Msg("command failed")
	s.tellError(p, e)
}

// brief returns a name in a bad line, or "" if it is too long to be one.
func brief(b []byte) string {
	if len(b) > maxEcho {
		return ""
	}
	return string(b)
}
