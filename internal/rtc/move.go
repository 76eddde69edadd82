//go:build !js

package rtc

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// confirmTime is how long after something was written to a socket the other end is asked to confirm that it has it.
	confirmTime = 20 * time.Millisecond
	// followPatience is how long the other end's word that it has moved may be ahead of the socket's.
	followPatience = 2 * time.Second
)

// A move is how a link between two processes of one user on one host comes to go over a socket. Both ends say in their hello on which
// host they are, by a mark that means nothing to others. If it is the same one, the end that made the offer names a socket, and the other
// end connects to it; both prove that they know a secret that only the data channel has carried. From then on each end writes `moved` as
// its last line to the data channel, at the end of a line, and everything else to the socket, which the other end reads from when it has
// read `moved`. So the order holds, and nothing is lost or doubled. When an end has also heard `followed`, that the other has read its
// `moved`, nothing depends on the data channel any more.
//
// Until it has written `moved` an end can go on as before. After that the end of either way is that of the link.
type move struct {
	mark     string // of our host for this link; "" if it cannot be moved
	peerMark string // the reader's
	dialled  bool   // the reader's

	// What follows is of the session. settled is called once nothing depends on the data channel any more, and failed if there is no other
	// way.
	dial    func(*wire.Local)
	settled func()
	failed  func()

	wanted atomic.Bool // the writer is to move
	out    atomic.Bool // it has moved

	mu       sync.Mutex
	channel  *localChannel
	second   *localChannel // for streams
	ready    chan struct{} // closed when there is a channel
	in       bool          // the other end has moved
	followed bool          // it has read all of the data channel
	ended    bool          // the link has
}

// begin returns the mark of this host for the hello, "" if there is none.
func (p *Peer) beginMove() string {
	m := &p.move
	m.ready = make(chan struct{})
	m.settled, m.failed, m.dial = func() {}, func() {}, func(*wire.Local) {}
	if !p.cfg.NoLocal && p.drains {
		m.mark = hostMark(p.cfg.boot, p.binding)
	}
	return m.mark
}

// hostMark returns a mark by which the two ends of a link know that they are of one user on one host, and nobody else knows anything; "" if
// this host has no id.
func hostMark(boot string, l identity.Link) string {
	if boot == "" || l.OwnSession == "" || l.OtherSession == "" {
		return ""
	}
	offerer, answerer := l.OwnSession, l.OtherSession
	if !l.Offerer {
		offerer, answerer = answerer, offerer
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "mesh host\n%s\n%d\n%s\n%s", boot, os.Geteuid(), offerer, answerer))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// possible reports whether both ends are on one host. It is known once the peer has said hello.
func (m *move) possible() bool { return m.mark != "" && m.mark == m.peerMark }

// due reports whether the writer is to move.
func (m *move) due() bool { return m.wanted.Load() && !m.out.Load() }

// both reports whether both directions go over the socket, so that the end of the data channel is no matter.
func (m *move) both() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.in && m.out.Load()
}

// to has the link go over a socket, and reports whether it still can. start is called if so, before the link can end.
func (m *move) to(c *localChannel, start func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended || m.channel != nil {
		return false
	}
	start()
	m.channel = c
	close(m.ready)
	m.wanted.Store(true)
	return true
}

// also has a socket end with the link, and reports whether it still can; start is as with to.
func (m *move) also(c *localChannel, start func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended || m.second != nil {
		return false
	}
	start()
	m.second = c
	return true
}

// end ends the sockets with the link.
func (m *move) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = true
	for _, c := range []*localChannel{m.channel, m.second} {
		if c != nil {
			c.leave()
		}
	}
}

// moveOut has what is written go over the socket, once `moved` was written to the data channel. The writer calls it.
func (p *Peer) moveOut() {
	m := &p.move
	m.mu.Lock()
	defer m.mu.Unlock()
	p.out.byDrains(p.dc.BufferedAmount(), func() { time.AfterFunc(confirmTime, p.confirm) })
	p.budget.fix(localBudget)
	p.carrier.moveOut(m.channel)
	m.out.Store(true)
	p.sayFollowedLocked()
}

// follow has what is read come from the socket, since `moved` was the last line on the data channel. The reader calls it.
func (p *Peer) follow(r *lineReader) error {
	m := &p.move
	if !m.possible() || !r.whole() {
		return fmt.Errorf("%w: it moves where there is no way, or in the middle of a line", ErrViolation)
	}
	late := time.NewTimer(followPatience)
	defer late.Stop()
	select {
	case <-m.ready:
	case <-p.done:
		return ErrPeerClosed
	case <-late.C:
		return fmt.Errorf("%w: it has moved to nowhere", ErrViolation)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.in {
		return fmt.Errorf("%w: it moves twice", ErrViolation)
	}
	m.in = true
	p.carrier.moveIn(m.channel)
	p.sayFollowedLocked()
	return nil
}

// sayFollowedLocked tells the other end that everything on the data channel was read, once both directions go over the socket.
func (p *Peer) sayFollowedLocked() {
	if p.move.in && p.move.out.Load() {
		p.out.addLocal(wire.AppendPeerFollowed(nil))
	}
}

// peerFollowed handles the other end's word that it has read everything on the data channel.
func (p *Peer) peerFollowed() {
	m := &p.move
	m.mu.Lock()
	settled := m.in && m.out.Load() && !m.followed
	m.followed = m.followed || settled
	m.mu.Unlock()
	if settled {
		p.carrier.retire()
		m.settled()
	}
}

// confirm asks the other end to confirm what it has read.
func (p *Peer) confirm() {
	if p.out.confirm() {
		p.flush()
	}
}

// localOffered handles where the other end waits on this host, or that it knows no way.
func (p *Peer) localOffered(l *wire.Local) {
	switch {
	case l == nil && p.binding.Offerer:
		p.move.failed()
	case l != nil && !p.binding.Offerer && p.move.possible() && !p.move.dialled:
		p.move.dialled = true
		p.move.dial(l)
	}
}
