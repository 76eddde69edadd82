//go:build !js

package rtc

import (
	"sync"
	"time"
)

// relinkAfter is how long it takes to make a link in place of one that has ended.
const relinkAfter = 50 * time.Millisecond

// deadAfter is how long it takes to notice that a peer's process has been killed, as over WebRTC.
const deadAfter = 5 * time.Second

// A memLink is a link between two members.
type memLink struct {
	path *memPath
	of   [2]*Member
	ends [2]*Peer
	dcs  [2]*memChannel

	once  sync.Once // for streams
	mu    sync.Mutex
	more  [2]*memChannel // for streams
	ended bool
	dead  *Peer // that end is of a process that was killed: the other is told nothing
}

// makeStreams makes the channel for streams.
func (l *memLink) makeStreams() {
	l.once.Do(func() {
		a, b := newMemChannels(l.path)
		l.mu.Lock()
		ended := l.ended
		l.more[0], l.more[1] = a, b
		l.mu.Unlock()
		if ended {
			return
		}
		_ = l.ends[0].startStreams(a, true) // an error is one of our own configuration
		_ = l.ends[1].startStreams(b, false)
	})
}

// end ends the link: at p's end for a reason, at the other as if p had closed it.
func (l *memLink) end(p *Peer, reason error) {
	l.mu.Lock()
	again := l.ended
	l.ended = true
	dead := l.dead == p
	l.mu.Unlock()
	p.end(reason)
	for i, c := range l.channels() {
		if !dead || l.ends[i%2] == p {
			c.close()
		}
	}
	if !dead {
		l.path.remove(l)
	}
	if !again && !dead {
		l.path.room.later.after(relinkAfter, nil, func() { l.path.room.link(l.of[0], l.of[1]) })
	}
}

// channels returns those of both ends, by turns.
func (l *memLink) channels() []*memChannel {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more[0] == nil {
		return l.dcs[:]
	}
	return append(l.dcs[:len(l.dcs):len(l.dcs)], l.more[:]...)
}

// silence ends both ends of the link for a reason: nothing came over the path for too long, or there is another link.
func (l *memLink) silence(reason error) {
	l.mu.Lock()
	l.dead = nil // who has been killed is no matter any more
	l.mu.Unlock()
	l.ends[0].end(reason)
	l.end(l.ends[1], reason)
}

// kill ends one end of the link at once, and the other when its peer's silence has lasted.
func (l *memLink) kill(dead *Peer) {
	far := 0
	if l.ends[0] == dead {
		far = 1
	}
	l.mu.Lock()
	l.dead = dead
	l.mu.Unlock()
	l.path.room.later.after(deadAfter, nil, func() { l.end(l.ends[far], ErrDied) })
}

func (l *memLink) has(m *Member) bool { return l.of[0] == m || l.of[1] == m }
