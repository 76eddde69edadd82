//go:build !js

package rtc_test

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// recorder is an Events that keeps what it was told and checks the rules of the interface.
type recorder struct {
	t    *testing.T
	name string

	mu       sync.Mutex
	live     map[string]*rtc.Peer
	log      []string // "+peer", "-peer", in order
	reasons  []error
	failed   map[string]*wire.Error
	faults   []error
	rejected []error
	controls []string
	jams     map[string][]bool // PeerCongested
	messages map[string][]string
	busy     map[string]*atomic.Int32
	onLine   func(p *rtc.Peer, l *wire.PeerLine) bool // true: handled
	onUp     func(p *rtc.Peer)
	onGone   func(p *rtc.Peer)
	onFailed func()
	onStream func(s *rtc.Stream)
	paths    testutil.Record[wire.PeerStats] // PeerPath
}

func newRecorder(t *testing.T, name string) *recorder {
	return &recorder{
		t: t, name: name, live: make(map[string]*rtc.Peer), failed: make(map[string]*wire.Error),
		jams: make(map[string][]bool), messages: make(map[string][]string), busy: make(map[string]*atomic.Int32),
	}
}

// enter checks that calls about a peer do not overlap.
func (r *recorder) enter(id string) func() {
	r.mu.Lock()
	b := r.busy[id]
	if b == nil {
		b = new(atomic.Int32)
		r.busy[id] = b
	}
	r.mu.Unlock()
	if b.Add(1) != 1 {
		r.t.Errorf("%s: calls about %s overlap", r.name, id)
	}
	return func() { b.Add(-1) }
}

func (r *recorder) PeerConnected(p *rtc.Peer) {
	defer r.enter(p.ID())()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live[p.ID()] != nil {
		r.t.Errorf("%s: second PeerConnected for %s", r.name, p.ID())
	}
	r.live[p.ID()] = p
	r.log = append(r.log, "+"+p.ID())
	if r.onUp != nil {
		r.onUp(p)
	}
}

func (r *recorder) PeerDisconnected(p *rtc.Peer, reason error) {
	defer r.enter(p.ID())()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live[p.ID()] != p {
		r.t.Errorf("%s: PeerDisconnected for %s, which is not connected", r.name, p.ID())
	}
	delete(r.live, p.ID())
	r.log = append(r.log, "-"+p.ID())
	r.reasons = append(r.reasons, reason)
	if r.onGone != nil {
		r.onGone(p)
	}
}

func (r *recorder) PeerLine(p *rtc.Peer, l *wire.PeerLine) {
	defer r.enter(p.ID())()
	r.mu.Lock()
	if r.live[p.ID()] != p {
		r.t.Errorf("%s: line from %s, which is not connected", r.name, p.ID())
	}
	onLine := r.onLine
	r.mu.Unlock()
	if onLine != nil && onLine(p, l) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if l.Kind == wire.PeerMessage {
		r.messages[p.ID()] = append(r.messages[p.ID()], string(l.Message.Raw))
		return
	}
	c := l.Kind.String()
	if l.Kind == wire.PeerCancel {
		c += " " + string(l.RequestID)
	}
	r.controls = append(r.controls, c)
}

// PeerStream echoes what comes, unless the test has another use for it.
func (r *recorder) PeerStream(_ *rtc.Peer, s *rtc.Stream) {
	if r.onStream != nil {
		r.onStream(s)
		return
	}
	go func() { // ends with the stream
		_, _ = io.Copy(s, s)
		_ = s.Close()
	}()
}

func (r *recorder) PeerRejected(p *rtc.Peer, err error) {
	defer r.enter(p.ID())()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rejected = append(r.rejected, err)
}

func (r *recorder) PeerPath(p *rtc.Peer) { r.paths.Add(p.Stats()) }

func (r *recorder) PeerCongested(p *rtc.Peer, stop wire.Stop) {
	defer r.enter(p.ID())()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.jams[p.ID()] = append(r.jams[p.ID()], stop != wire.StopNothing)
}

func (r *recorder) ConnectFailed(id string, err *wire.Error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed[id] = err
	if r.onFailed != nil {
		r.onFailed()
	}
}

func (r *recorder) Fault(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, err)
}

// get reads fields of the recorder.
func get[T any](r *recorder, f func() T) T {
	r.mu.Lock()
	defer r.mu.Unlock()
	return f()
}

func (r *recorder) peer(id string) *rtc.Peer {
	return get(r, func() *rtc.Peer { return r.live[id] })
}

func (r *recorder) history() string {
	return get(r, func() string { return fmt.Sprint(r.log) })
}

func (r *recorder) received(from string) []string {
	return get(r, func() []string { return append([]string(nil), r.messages[from]...) })
}
