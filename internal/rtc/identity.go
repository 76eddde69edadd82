//go:build !js

package rtc

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/wire"
)

var (
	errDowngrade  = errors.New("it had an identity, and this offer has no room for one")
	errAnotherKey = errors.New("it has shown another key than the one of the present link")
)

// identityError returns the reason for the end of a link whose peer was not accepted; nil for nil.
func identityError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.As(err, new(*identity.FileError)):
		return localErrorf("check the peer's identity: %w", err)
	}
	return refusedError{err}
}

// A refusedError is an ErrIdentity whose text is only the reason.
type refusedError struct{ error }

func (e refusedError) Unwrap() []error { return []error{ErrIdentity, e.error} }

// binding returns what both ends of the link sign. The handshake of DTLS is over by now: it has proven that each end
// has the key of its certificate.
func (s *session) binding() (identity.Link, error) {
	l := identity.Link{Offerer: s.offerer, Own: s.self, Other: s.sl.id, OwnSession: s.session, OtherSession: s.remote.session}
	other := s.pc.SCTP().Transport().GetRemoteCertificate()
	if len(other) == 0 {
		return l, localErrorf("the peer's certificate is not known")
	}
	l.OwnCert, l.OtherCert = s.cert, sha256.Sum256(other)
	return l, nil
}

// verify handles the identity in the peer's hello, or that there is none.
func (p *Peer) verify(h *wire.Greeting) error {
	proof, err := p.cfg.Identity.Verify(p.binding, receivedIdentity(h.Identity))
	if err != nil {
		return identityError(err)
	}
	p.proof.Store(&proof)
	return nil
}

// renew handles a newer membership of the peer.
func (p *Peer) renew(m *wire.Membership) error {
	proof, err := p.cfg.Identity.Renew(p.id, p.Proof(), (*identity.Statement)(m))
	if err != nil {
		return fmt.Errorf("membership not renewed: %w", err)
	}
	p.proof.Store(&proof)
	return nil
}

// admit has the loop decide whether a session whose peer has said hello becomes the link, and blocks until it has.
func (s *session) admit() {
	decided := make(chan struct{})
	s.post(func() {
		s.n.admit(s)
		close(decided)
	})
	select {
	case <-decided:
	case <-s.peer.done:
	}
}

// admit announces a session's link, in place of the present one if there is any. It runs in the loop.
func (n *Node) admit(s *session) {
	if sl := s.sl; sl.next == s {
		old := sl.cur
		if !n.cfg.Identity.Displaces(s.peer.Proof(), old.peer.Proof()) {
			n.lost(s, identityError(errAnotherKey))
			return
		}
		reason := ErrReplaced
		if old.remote.instance != s.remote.instance {
			reason = ErrRestarted
		}
		sl.next = nil
		n.drop(sl, reason)
		sl.cur = s
	}
	s.peer.announce()
}

// watchIdentities ends the links to peers whose identity no longer counts, and sends renewed memberships, until ctx
// ends.
func (n *Node) watchIdentities(ctx context.Context) {
	tick := time.NewTicker(n.cfg.timing.identityWatch)
	defer tick.Stop()
	told := ""
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		renewed, err := n.cfg.Identity.Reload()
		text := fmt.Sprint(err)
		if err != nil && text != told {
			n.ev.Fault(fmt.Errorf("identity file not usable; what it said before counts: %w", err))
		}
		told = text
		n.box.post(func() { n.recheck(renewed) })
	}
}

// recheck runs in the loop.
func (n *Node) recheck(renewed *identity.Statement) {
	for _, sl := range n.slots {
		s := sl.cur
		if s == nil || !s.up {
			continue
		}
		if renewed != nil && s.peer.stream {
			s.peer.out.setMember((*wire.Membership)(renewed))
		}
		if err := n.cfg.Identity.Check(s.peer.Proof()); err != nil {
			n.lost(s, identityError(err))
		}
	}
}

func shownIdentity(s *identity.Shown) *wire.Identity {
	if s == nil {
		return nil
	}
	return &wire.Identity{Mesh: s.Mesh, Key: s.Key, Sig: s.Sig, Member: (*wire.Membership)(s.Member)}
}

func receivedIdentity(w *wire.Identity) *identity.Shown {
	if w == nil {
		return nil
	}
	return &identity.Shown{Mesh: w.Mesh, Key: w.Key, Sig: w.Sig, Member: (*identity.Statement)(w.Member)}
}
