//go:build !js

package rtc

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// confirmTime is how long after something was written to a socket the other end is asked to confirm that it has it.
	confirmTime = 20 * time.Millisecond
	// followPatience is how long the other end's word that it has moved may be ahead of our own knowledge of the socket.
	followPatience = 10 * time.Second
)

// A move is how a link between two processes of one user on one host comes to go over sockets. Both ends say in their hello on which
// host they are, by a mark that means nothing to others. If it is the same one, the end that made the offer names a socket, and the other
// end connects to it; both prove that they know a secret that only the data channel has carried. From then on each end writes `moved` as
// its last line to the data channel, at the end of a line, and everything else to the socket, which the other end reads from when it has
// read `moved`. So the order holds, and nothing is lost or doubled. Streams that have begun move likewise, between two frames of their own
// data channel, to a second socket. When an end has also heard `followed`, that the other has read every `moved` of ours, nothing depends
// on the data channels any more. If the link can carry streams that have not begun, a second socket is kept for them.
//
// The end that made the offer decides, when it welcomes the last connection, that for messages: until then the attempt can end, and the link
// goes on as before. After that the end of either way is that of the link.
type move struct {
	mark    string // of our host for this link; "" if it cannot be moved
	dialled bool   // the reader's

	// What follows is of the session. settled is called once nothing depends on the data channels any more, and failed if there is no
	// other way.
	dial    func(*wire.Local)
	settled func()
	failed  func()

	decided atomic.Bool // the link moves

	mu       sync.Mutex
	peer     bool          // the other end is on this host
	want     string        // the mark that it has then
	ready    chan struct{} // closed when it is decided
	able     bool          // the link can carry streams
	streams  bool          // they move, too, from a data channel
	ways     [localPurposes]way
	followed bool // the other end has read all of the data channels
	over     bool // the attempt has failed
	ended    bool // the link has
}

// A way is what moves of a link: its messages, or its streams.
type way struct {
	carrier *carrier      // nil if there is no data channel for it
	channel *localChannel // nil if there is none yet
	pumped  bool          // it has its goroutine
	due     atomic.Bool   // the writer is to move
	in, out bool          // the other end has moved, and we have
}

// beginMove returns the mark of this host for the hello, "" if there is none.
func (p *Peer) beginMove() string {
	m := &p.move
	m.ready, m.able = make(chan struct{}), p.streams.able
	m.settled, m.failed, m.dial = func() {}, func() {}, func(*wire.Local) {}
	if !p.cfg.NoLocal && p.drains {
		m.mark, m.want = hostMarks(p.cfg.boot, p.binding)
	}
	return m.mark
}

// hostMarks returns the marks by which the two ends of a link recognise that they are of one user on one host: ours, and that of the other end. A third
// party learns nothing from them, and cannot make one from the other. They are "" if this host has no id.
func hostMarks(boot string, l identity.Link) (own, other string) {
	if boot == "" || l.OwnSession == "" || l.OtherSession == "" {
		return "", ""
	}
	sum, roles := l.Sum(), []string{"offerer", "answerer"}
	if !l.Offerer {
		slices.Reverse(roles)
	}
	mark := func(role string) string {
		h := sha256.Sum256(fmt.Appendf(nil, "mesh host\n%s\n%d\n%s\n%x", boot, os.Geteuid(), role, sum))
		return base64.StdEncoding.EncodeToString(h[:])
	}
	return mark(roles[0]), mark(roles[1])
}

// meets takes the mark in the other end's hello.
func (m *move) meets(mark string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.peer = m.mark != "" && mark == m.want
}

// possible reports whether both ends are on one host. It is known once the peer has said hello.
func (m *move) possible() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peer
}

// ending reports whether messages come from a socket whose other end is gone, which the end of that for streams says.
func (m *move) ending() bool {
	c := m.socket()
	if c == nil {
		return false
	}
	for end := time.Now().Add(deathPatience); !sock.Hung(c.conn); <-time.After(deathPatience / 10) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// socket returns the socket for messages if they come from there; nil otherwise.
func (m *move) socket() *localChannel {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := &m.ways[localMessages]; w.in {
		return w.channel
	}
	return nil
}

// setReading has it noticed that the other end of the socket is gone while that is not read.
func (m *move) setReading(on bool, hungUp func(error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := &m.ways[localMessages]
	switch {
	case !w.in:
	case on:
		w.channel.setUnread(nil)
	default:
		w.channel.setUnread(hungUp)
	}
}

// inIdle reports whether messages come from a socket of which nothing is read that was not passed on. The reader calls it.
func (m *move) inIdle() bool {
	c := m.ways[localMessages].carrier.in.Load()
	return c != nil && c.start == c.end
}

// expect begins an attempt, and says whether streams are to move, too.
func (m *move) expect(streams bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.streams = streams
}

// carries notes the data channel that is used for a purpose.
func (m *move) carries(purpose byte, c *carrier) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ways[purpose].carrier = c
	m.dueLocked()
}

// take has a socket be used, or kept, and reports whether it still can. If so welcome is called, before anything is written to the socket, and
// pump for a socket that is used. The one for messages comes last.
func (m *move) take(purpose byte, c *localChannel, welcome func(), pump func(*localChannel)) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := &m.ways[purpose]
	late := m.ended || m.over || m.decided.Load()
	if late || w.channel != nil || purpose == localStreams && !m.able || purpose == localMessages && m.able && m.ways[localStreams].channel == nil {
		return false
	}
	welcome()
	w.channel = c
	if purpose == localMessages {
		m.decided.Store(true)
		for _, w := range m.movingLocked() {
			w.pumped = true
			pump(w.channel)
		}
		close(m.ready)
		m.dueLocked()
	}
	return true
}

// kept returns the socket for streams that have not begun, once; nil if there is none. Its goroutine is begun by pump.
func (m *move) kept(pump func(*localChannel)) *localChannel {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := &m.ways[localStreams]
	if m.ended || m.streams || w.channel == nil || w.pumped {
		return nil
	}
	w.pumped = true
	pump(w.channel)
	return w.channel
}

// gone forgets the data channels: the other end has closed them, once it needed them no more.
func (m *move) gone() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.movingLocked() {
		w.carrier.retire()
	}
	m.settled()
}

// giveUp ends the attempt, unless the link moves, and reports whether it did.
func (m *move) giveUp() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.decided.Load() {
		return false
	}
	m.over = true
	m.leaveLocked()
	return true
}

// end ends the sockets with the link.
func (m *move) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = true
	m.leaveLocked()
}

func (m *move) leaveLocked() {
	for i := range m.ways {
		if c := m.ways[i].channel; c != nil {
			c.leave()
		}
	}
}

// movingLocked returns the ways that move from a data channel.
func (m *move) movingLocked() []*way {
	if m.streams {
		return []*way{&m.ways[localMessages], &m.ways[localStreams]}
	}
	return []*way{&m.ways[localMessages]}
}

// dueLocked tells the writer what is to move.
func (m *move) dueLocked() {
	if !m.decided.Load() {
		return
	}
	for _, w := range m.movingLocked() {
		w.due.Store(w.carrier != nil && !w.out)
	}
}

// due reports whether the writer is to move.
func (m *move) due(purpose byte) bool { return m.ways[purpose].due.Load() }

// complete reports whether everything goes over sockets in both directions, so that the end of the data channels is no matter.
func (m *move) complete() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.completeLocked()
}

func (m *move) completeLocked() bool {
	return !slices.ContainsFunc(m.movingLocked(), func(w *way) bool { return !w.in || !w.out })
}

// moveOut has what is written go over the socket, once `moved` was written to the data channel. The writer calls it.
func (p *Peer) moveOut(purpose byte) {
	m := &p.move
	m.mu.Lock()
	defer m.mu.Unlock()
	if purpose == localMessages {
		p.out.byDrains(p.dc.BufferedAmount(), func() { time.AfterFunc(confirmTime, p.out.confirm) })
		p.budget.fix(localBudget)
	}
	w := &m.ways[purpose]
	w.carrier.moveOut(w.channel)
	w.out = true
	m.dueLocked()
	p.movedLocked()
}

// follow has what is read come from the socket, since `moved` was the last on the data channel; whole says that nothing before it is
// unfinished. The goroutine that reads calls it.
func (p *Peer) follow(purpose byte, whole bool) error {
	m := &p.move
	if !m.possible() || !whole {
		return fmt.Errorf("%w: it moves where there is no way, or in the middle of something", ErrViolation)
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
	w := &m.ways[purpose]
	if w.in || w.channel == nil || w.carrier == nil {
		return fmt.Errorf("%w: it moves twice, or what is not to move", ErrViolation)
	}
	w.in = true
	w.carrier.moveIn(w.channel)
	if purpose == localMessages && p.reading.shut() { // or SetReading comes to it
		w.channel.setUnread(p.hungUp)
	}
	p.movedLocked()
	return nil
}

// movedLocked comes after each step of the move. It tells the other end that everything on the data channels was read, once nothing is left
// to move.
func (p *Peer) movedLocked() {
	if p.move.completeLocked() {
		p.out.addLocal(wire.AppendPeerFollowed(nil))
		p.settleLocked()
	}
}

// peerFollowed handles the other end's word that it has read everything on the data channels.
func (p *Peer) peerFollowed() {
	m := &p.move
	m.mu.Lock()
	defer m.mu.Unlock()
	again := m.followed
	m.followed = true
	if !again {
		p.settleLocked()
	}
}

// settleLocked ends the move, if both ends have nothing left to do.
func (p *Peer) settleLocked() {
	if m := &p.move; m.followed && m.completeLocked() {
		for _, w := range m.movingLocked() {
			w.carrier.retire()
		}
		m.settled()
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
