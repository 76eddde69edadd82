//go:build !js

package rtc

import (
	"bytes"
	"sync"
	"sync/atomic"
)

// SetCard sets what peers are told of this agent from now on: a JSON object, nil for nothing. Peers that do not know of cards ignore it.
func (n *Node) SetCard(card []byte) {
	n.cfg.card.Store(&card)
	n.peersMu.Lock()
	defer n.peersMu.Unlock()
	for p := range n.peers {
		if p.live() { // the others are told when they are
			p.tellCard()
		}
	}
}

// A cardTold is the card that a peer was told last.
type cardTold struct {
	mu   sync.Mutex
	last *[]byte // as Config.card had it
}

// first returns the card for the hello.
func (t *cardTold) first(current *atomic.Pointer[[]byte]) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last = current.Load(); t.last == nil {
		return nil
	}
	return *t.last
}

// tellCard tells the peer of the present card, if it is another one than the last that it was told.
func (p *Peer) tellCard() {
	if !p.stream {
		return
	}
	p.ownCard.mu.Lock()
	defer p.ownCard.mu.Unlock()
	if now := p.cfg.card.Load(); now != p.ownCard.last {
		p.ownCard.last = now
		p.out.setCard(*now)
	}
}

// Card returns what the peer says about its agent, a JSON object; nil if nothing.
func (p *Peer) Card() []byte {
	if c := p.card.Load(); c != nil {
		return *c
	}
	return nil
}

func (p *Peer) setPeerCard(card []byte) {
	card = bytes.Clone(card)
	p.card.Store(&card)
}
