package sidecar

import (
	"fmt"

	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// What the network reports (networkEvents) goes to the agent.

func (s *Sidecar) peerConnected(l peerLink) {
	s.mu.Lock()
	s.peers[l.ID()] = newPeer(s, l)
	s.mu.Unlock()
	s.outside.Info(l.ID()).Str("peer", l.ID()).Bool("extended", l.Extended()).Str("key", l.Key()).Msg("peer connected")
	t, key, card := s.terms.Load(), "", []byte(nil)
	if t.knows(wire.FeatureIdentity) {
		key = l.Key()
	}
	if t.knows(wire.FeatureCards) {
		card = l.Card()
	}
	s.event(nil, func(b []byte) []byte { return wire.AppendPeerConnected(b, l.ID(), key, card) })
}

// tellCard tells the agent of a peer's card.
func (s *Sidecar) tellCard(p *peer) {
	s.tell(wire.FeatureCards, p, func(b []byte) []byte {
		if p.hasEnded() { // behind peer_disconnected it would be taken for that of the next link
			return b
		}
		return wire.AppendCardEvent(b, p.ID(), p.Card())
	})
	p.settle()
}

// tellCards tells the agent of the cards of peers that were listed.
func (s *Sidecar) tellCards(ids []string) {
	peers := s.livePeers()
	for _, id := range ids {
		if p := peers[id]; p != nil && p.Card() != nil {
			s.tellCard(p)
		}
	}
}

func (s *Sidecar) peerDisconnected(l peerLink, reason error) {
	s.mu.Lock()
	p := s.peers[l.ID()]
	delete(s.peers, l.ID())
	s.mu.Unlock()
	if p != nil {
		p.end()
	}
	s.outside.Info(l.ID()).Str("peer", l.ID()).Str("reason", logs.Error(reason)).Msg("peer disconnected")
	s.event(nil, func(b []byte) []byte { return wire.AppendPeerDisconnected(b, l.ID()) })
}

// peerLine passes on what a peer sent. The peer's name comes from its link, never from the message.
func (s *Sidecar) peerLine(l peerLink, line *wire.PeerLine) {
	p := s.peerOf(l)
	if p == nil {
		return
	}
	switch line.Kind {
	case wire.PeerMessage:
		s.forward(p, &line.Message)
	case wire.PeerCancel:
		s.cancelled(p, line.RequestID)
	case wire.PeerPause, wire.PeerResume:
		p.setRefused(line.Stop)
	case wire.PeerCard:
		s.tellCard(p)
	}
}

var errLongCancel = fmt.Errorf("cancel whose request_id has more than %d bytes", wire.MaxCancelID)

// cancelled passes on that a peer gave up a request. It waits at the peer's charge like a message, and may be dropped,
// since it only saves work.
func (s *Sidecar) cancelled(p *peer, id []byte) {
	if len(id) > wire.MaxCancelID {
		s.peerRejected(p, errLongCancel)
		return
	}
	s.tell(wire.FeatureCancel, p, func(b []byte) []byte { return wire.AppendCancelEvent(b, p.ID(), string(id)) })
	p.settle()
}

func (s *Sidecar) peerOf(l peerLink) *peer {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.peers[l.ID()]
}

// forward passes a message to the agent, or drops it if the agent does not read messages like it.
func (s *Sidecar) forward(p *peer, m *wire.Message) {
	p.in.message(len(m.Raw)) // before the agent can ask
	t := s.terms.Load()
	var unread error
	add := func(b []byte) []byte {
		n := len(b)
		b = wire.AppendMessage(b, p.ID(), m.Raw)
		if unread = t.check(m.Raw, len(b)-n); unread != nil {
			b = b[:n]
		}
		return b
	}
	if p.Inline() {
		work, err := s.link.WriteNowInline(p, add)
		if s.written(err); work != nil {
			p.Leave(work)
		}
	} else {
		s.event(p, add)
	}
	if unread != nil {
		s.outside.Warn(p.ID()).Str("peer", p.ID()).Int("bytes", len(m.Raw)).Int64("dropped", s.dropped.Add(1)).AnErr("reason", unread).
			Msg("message dropped: the agent does not read it")
	}
	p.arrived(m)
}

// peerRejected logs and counts a line from a peer that is dropped.
func (s *Sidecar) peerRejected(l peerLink, err error) {
	s.outside.Warn(l.ID()).Str("peer", l.ID()).Int64("count", s.badPeerLines.Add(1)).Str("error", logs.Error(err)).Msg("line from a peer rejected")
}

func (s *Sidecar) peerCongested(l peerLink, stop wire.Stop) {
	if p := s.peerOf(l); p != nil {
		p.setCongested(stop)
	}
}

// peerPath tells the agent that a link has moved to another path.
func (s *Sidecar) peerPath(l peerLink) {
	if p := s.peerOf(l); p != nil {
		st := p.Stats()
		s.tell(wire.FeatureStats, p, func(b []byte) []byte { return wire.AppendPath(b, st) })
		p.settle()
	}
}

// connectFailed tells the agent that its connect led nowhere.
func (s *Sidecar) connectFailed(id string, err *wire.Error) {
	s.outside.Info(id).Str("peer", logs.Cut(id)).Str("error", logs.Error(err)).Msg("connect failed")
	s.tellError(nil, wire.ErrorEvent{Code: err.Code, Message: err.Text, Command: wire.TypeConnect.String(), TargetPeer: brief([]byte(id))})
}

// fault tells the agent of what no command and no peer has caused.
func (s *Sidecar) fault(err error) {
	s.log.Error().Str("error", logs.Error(err)).Msg("fault")
	s.tellError(nil, wire.ErrorEvent{Code: wire.CodeInternal, Message: err.Error()})
}

func (s *Sidecar) signalingChanged(st signal.Status) {
	s.mu.Lock()
	known := st.Err == nil && s.status.Err == nil && st.State == s.status.State // as at the start
	s.status = st
	s.mu.Unlock()
	if known {
		return
	}
	e := s.outside.Info(fromSignaling).Str("state", string(st.State)).Str("peer_id", st.PeerID)
	if st.Err != nil {
		e = e.Str("reason", logs.Error(st.Err))
	}
	e.Msg("signaling")
	s.tellStatus()
}
