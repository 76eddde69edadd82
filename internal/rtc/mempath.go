//go:build !js

package rtc

import (
	"fmt"
	"sync"
	"time"
)

// A memPath is the way between two members, over which their links go.
type memPath struct {
	room *Room

	mu      sync.Mutex
	healed  chan struct{} // closed when the path is cut no more; nil while it is not
	links   map[*memLink]struct{}
	last    *memLink
	outages int // that links have survived
}

func pathKey(a, b string) [2]string { return [2]string{min(a, b), max(a, b)} }

func (r *Room) path(a, b string) *memPath {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.paths[pathKey(a, b)]
	if p == nil {
		p = &memPath{room: r, links: make(map[*memLink]struct{})}
		r.paths[pathKey(a, b)] = p
	}
	return p
}

// add reports whether there may be a link now, which is this one then.
func (p *memPath) add(l *memLink) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.healed != nil || len(p.links) > 0 {
		return false
	}
	p.links[l] = struct{}{}
	p.last = l
	return true
}

// replace ends the link of an earlier member, and returns when its ends have been reported: what is told of one peer is in order.
func (p *memPath) replace(a, b *Member) {
	p.mu.Lock()
	last := p.last
	p.mu.Unlock()
	if last != nil && !(last.has(a) && last.has(b)) {
		last.silence(ErrRestarted)
	}
}

func (p *memPath) remove(l *memLink) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

func (p *memPath) isCut() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.healed != nil
}

func (p *memPath) survived() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.outages
}

func (p *memPath) delayed() time.Duration {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	return p.room.delay
}

// interrupt lets nothing pass until heal. Links last for so long.
func (p *memPath) interrupt(limit time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.healed != nil {
		return
	}
	p.healed = make(chan struct{})
	p.room.later.after(limit, p.healed, func() {
		for _, l := range p.all() {
			l.silence(fmt.Errorf("%w: interrupted for %s", ErrUnreachable, limit))
		}
	})
}

// heal has what was sent pass on.
func (p *memPath) heal() {
	p.mu.Lock()
	if p.healed != nil {
		close(p.healed)
		p.healed = nil
		p.outages += min(len(p.links), 1)
	}
	p.mu.Unlock()
	for _, l := range p.all() {
		for _, c := range l.channels() {
			notify(c.wake)
		}
	}
}

func (p *memPath) all() (links []*memLink) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		links = append(links, l)
	}
	return links
}
