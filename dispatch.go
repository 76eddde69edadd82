package mesh

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/pace"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// All code of the application, handlers and callbacks, runs in the goroutines of
// this file.

var (
	// errUnexpectedResponse means that a response came late, has an unknown id, or
	// is not from the peer to which the request was sent.
	errUnexpectedResponse = errors.New("mesh: response dropped: no request to this peer waits for it")
)

// handle runs the handler of a message's type. A panic is an error like any other: a
// peer's message must not end the program.
func (m *Mesh) handle(ctx context.Context, msg *Message) (reply any, err error) {
	h := m.handler(msg.Type)
	switch {
	case h != nil:
	case msg.Type == wire.MessagePing:
		return struct{}{}, nil
	case msg.RequestID != "" && !wire.WantsResponse(msg.Type, msg.RequestID):
		return nil, errUnexpectedResponse
	default:
		return nil, fmt.Errorf("%w: type %q", ErrNoHandler, logs.Cut(msg.Type))
	}
	defer m.recovered(msg, &err)
	if reply, err = h(ctx, msg); err != nil {
		return nil, &handlerError{err.Error(), err}
	}
	return reply, nil
}

// recovered, deferred, makes an error of a panic in the code that handles a message.
func (m *Mesh) recovered(msg *Message, err *error) {
	if p := recover(); p != nil {
		m.panicked(p, msg.From).Str("type", logs.Cut(msg.Type)).Str("peer", msg.From).Msg("handler panicked")
		*err = &fault{error: fmt.Errorf("mesh: the handler panicked: %s", logs.Cut(fmt.Sprint(p)))}
	}
}

// A handlerError is what a handler returned. Its text was made where a panic of the
// error's own code ends no more than the request.
type handlerError struct {
	text string
	err  error
}

func (e *handlerError) Error() string { return e.text }
func (e *handlerError) Unwrap() error { return e.err }

// guard runs a callback of the application, and logs its panic.
func (m *Mesh) guard(f func()) {
	defer func() {
		if p := recover(); p != nil {
			m.panicked(p, "").Msg("callback panicked")
		}
	}()
	f()
}

// maxStack is how many bytes of a stack are logged.
const maxStack = 8 << 10

// panicked begins the record of a panic, with what names its cause. Peers can cause
// panics without end.
func (m *Mesh) panicked(p any, peer string) *zerolog.Event {
	e := m.outside.Error(peer)
	if e.Enabled() {
		stack := debug.Stack()
		e = e.Str("panic", logs.Cut(fmt.Sprint(p))).Bytes("stack", stack[:min(len(stack), maxStack)])
	}
	return e
}

// causedRate is how many of the failures that one peer causes are reported.
var causedRate = pace.Rate{Burst: 128, Every: time.Second / 16}

// report reports a failure that no caller waits for to Config.OnError and the log.
func (m *Mesh) report(err error) {
	peer := ""
	if e, ok := err.(*PeerError); ok { // whose fields a peer may have chosen
		if e.Op == "receive" {
			m.dropped(e.Peer, e.Type, dropReason(e.Err))
		}
		short := *e
		short.RequestID, short.Type = logs.Cut(e.RequestID), logs.Cut(e.Type)
		peer, err = e.Peer, &short
		if e.causedByPeer() && !m.caused.Take(peer) {
			m.outside.Warn(peer).Str("peer", peer).Int64("count", m.unreported.Add(1)).Msg("the peer causes too many failures; not reported")
			return
		}
	}
	m.outside.Warn(peer).Str(zerolog.ErrorFieldName, logs.Cut(plain(err))).Int64("count", m.reports.Add(1)).Msg("failure reported")
	if f := m.cfg.OnError; f != nil {
		m.notices.add(peer, func() { f(err) })
	}
}

const (
	// maxNotices bounds the calls that wait for a slow callback, and maxPeerNotices
	// those about one peer; further ones are dropped.
	maxNotices     = 1024
	maxPeerNotices = 128
)

// notices calls Config.OnError and Config.OnSignaling, one at a time and in order,
// in a goroutine that lives only while there is something to tell.
type notices struct {
	m *Mesh

	mu      sync.Mutex
	queue   []notice
	about   map[string]int // how many in queue are about a peer
	running bool
	lost    int // calls dropped so far
}

type notice struct {
	peer string // "" if it is about none
	call func()
}

func (n *notices) add(peer string, call func()) {
	if lost := n.push(notice{peer, call}); lost > 0 {
		n.m.outside.Error("").Int("lost", lost).Msg("callback too slow; notice dropped")
	}
}

// push queues a notice. It returns 0, or if it had to be dropped the number of all
// that were.
func (n *notices) push(it notice) (lost int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.queue) >= maxNotices || it.peer != "" && n.about[it.peer] >= maxPeerNotices {
		n.lost++
		return n.lost
	}
	n.queue = append(n.queue, it)
	if n.about == nil {
		n.about = make(map[string]int)
	}
	n.about[it.peer]++
	if !n.running {
		n.running = true
		n.m.handlers.run(n.work)
	}
	return 0
}

func (n *notices) work() {
	empty := false
	defer func() {
		if !empty { // a callback has ended its goroutine
			n.m.handlers.run(n.work)
		}
	}()
	for {
		f := n.pop()
		if f == nil {
			empty = true
			return
		}
		n.m.guard(f)
	}
}

func (n *notices) pop() func() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.queue) == 0 {
		n.queue, n.running = nil, false
		return nil
	}
	it := n.queue[0]
	n.queue[0] = notice{}
	n.queue = n.queue[1:]
	if n.about[it.peer]--; n.about[it.peer] == 0 {
		delete(n.about, it.peer)
	}
	return it.call
}

// maxIdleWorkers is how many goroutines wait for the next handler.
const maxIdleWorkers = 4

// workers are the goroutines that run the application's handlers and callbacks.
//
// A few are kept, since a new one begins with a small stack and has to grow it
// for nearly every handler, which takes longer than most of them.
type workers struct {
	wg   sync.WaitGroup
	next chan func()   // taken by an idle worker
	stop chan struct{} // closed by end

	mu   sync.Mutex
	idle int // waiting for next
	all  int // have not ended
}

func newWorkers() *workers {
	return &workers{next: make(chan func()), stop: make(chan struct{})}
}

// run starts f at once, whatever else is running.
func (w *workers) run(f func()) {
	select {
	case w.next <- f:
	default:
		w.count(1)
		w.wg.Go(func() { w.work(f) })
	}
}

// inline returns f for a goroutine that is none of the workers, but counts as one until it has run f.
func (w *workers) inline(f func()) func() {
	w.count(1)
	w.wg.Add(1)
	return func() {
		defer w.uncount()
		f()
	}
}

// uncount notes that what inline has returned was run, or will not be.
func (w *workers) uncount() {
	w.count(-1)
	w.wg.Done()
}

func (w *workers) work(f func()) {
	defer w.count(-1) // f may also end the goroutine
	for f != nil {
		f()
		f = w.wait()
	}
}

// wait blocks until there is something to do and returns it, or nil if the worker
// is to end.
func (w *workers) wait() func() {
	if !w.rest(1) {
		return nil
	}
	defer w.rest(-1)
	select {
	case f := <-w.next:
		return f
	case <-w.stop:
		return nil
	}
}

// count counts n more workers.
func (w *workers) count(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all += n
}

// rest counts n more idle workers, and reports false if they would be too many.
func (w *workers) rest(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.idle+n > maxIdleWorkers {
		return false
	}
	w.idle += n
	return true
}

// end makes idle workers end. From then on only workers may call run.
func (w *workers) end() { close(w.stop) }

// busy reports whether a handler or callback is running.
func (w *workers) busy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all > w.idle
}
