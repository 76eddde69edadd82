package mesh

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// BySkill is, in place of a peer's id in Call and CallStream, any live peer whose card
// offers a skill of this name. The one to which this agent has the fewest requests
// pending is asked first; if it refuses with ErrBusy, or goes before the request was
// sent, the next one is. If the type of the request is "" it is the one that the peer's
// card names. With no such peer the call fails with ErrNoSkill, and passes no Interceptor;
// those that are asked pass them one by one. A type of your own made from BySkill is a peer's id
// like any other string.
//
//	summary, err := mesh.Call[Summary](ctx, m, mesh.BySkill("summarize"), "", text)
type BySkill string

// A target is whom a call is for.
type target struct {
	peer    string
	skill   string
	bySkill bool // any peer with the skill will do
}

func asTarget[To ~string](to To) target {
	if _, ok := any(to).(BySkill); ok {
		return target{skill: string(to), bySkill: true}
	}
	return target{peer: string(to)}
}

// requestTo makes a request of a target.
func (m *Mesh) requestTo(ctx context.Context, to target, msg Message) (*Message, error) {
	if !to.bySkill {
		return m.Request(ctx, to.peer, msg)
	}
	last := error(nil)
	for peer, msg := range m.offers(to.skill, msg) {
		reply, err := m.Request(ctx, peer, msg)
		if !worthAnother(ctx, err) {
			return reply, err
		}
		last = err
	}
	return nil, m.noneLeft(ctx, to.skill, last)
}

// streamTo is requestTo for a request whose chunks are wanted.
func (m *Mesh) streamTo(ctx context.Context, to target, msg Message) iter.Seq2[*Message, error] {
	one := orElse(m.wrappers.stream, m.stream)
	if !to.bySkill {
		return one(ctx, to.peer, msg)
	}
	return func(yield func(*Message, error) bool) {
		last := error(nil)
	peers:
		for peer, msg := range m.offers(to.skill, msg) {
			begun := false
			for reply, err := range one(ctx, peer, msg) {
				if !begun && worthAnother(ctx, err) {
					last = err
					continue peers
				}
				begun = true
				if !yield(reply, err) {
					return
				}
			}
			return
		}
		yield(nil, m.noneLeft(ctx, to.skill, last))
	}
}

// worthAnother reports whether another peer may do what one has not begun to.
func worthAnother(ctx context.Context, err error) bool {
	if err == nil || ctx.Err() != nil {
		return false
	}
	e := (*PeerError)(nil)
	return errors.Is(err, ErrBusy) || errors.As(err, &e) && e.unsent && (errors.Is(err, ErrNotConnected) || errors.Is(err, ErrPeerGone))
}

// noneLeft returns the error of a call for which no peer is left.
func (m *Mesh) noneLeft(ctx context.Context, skill string, last error) error {
	switch {
	case last != nil:
		return last
	case m.ctx.Err() != nil:
		return m.closedError()
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case m.ipc() == nil:
		return ErrSidecarLost
	}
	return fmt.Errorf("%w %q; the cards of those that are there are in Peers", ErrNoSkill, skill)
}

// offers yields the peers that offer a skill, each once, the least busy first, with the
// request to make of it.
func (m *Mesh) offers(skill string, msg Message) iter.Seq2[string, Message] {
	return func(yield func(string, Message) bool) {
		tried := make(map[string]bool)
		for {
			peer, typ := m.leastBusy(skill, tried)
			if peer == "" {
				return
			}
			tried[peer] = true
			msg := msg
			if msg.Type == "" {
				msg.Type = typ
			}
			if !yield(peer, msg) {
				return
			}
		}
	}
}

// leastBusy returns a live peer that offers a skill and has not been tried, "" if there is
// none, and the type of request that its card names.
func (m *Mesh) leastBusy(skill string, tried map[string]bool) (peer, typ string) {
	pending := m.calls.perPeer()
	m.mu.Lock()
	defer m.mu.Unlock()
	least, equal := 0, 0
	for id, p := range m.peers {
		s, ok := p.card.Skill(skill)
		if !ok || !p.live || tried[id] || !s.askable() {
			continue
		}
		load := pending[id]
		if p.stop >= wire.StopNewWork { // it takes none now
			load += heldBack
		}
		switch {
		case equal == 0 || load < least:
			least, equal = load, 1
		case load == least:
			equal++
		default:
			continue
		}
		if rand.IntN(equal) == 0 { // each of equally busy ones is as likely
			peer, typ = id, s.Type
		}
	}
	return peer, typ
}

// heldBack is more requests than are pending with any peer.
const heldBack = 1 << 30
