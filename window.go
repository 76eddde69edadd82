package mesh

import (
	"sync"

	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// windowSize is how many bytes of messages may be with the sidecar unconfirmed when
	// another message is written. The sidecar's queue to a peer has room for twice that,
	// and a message more each time, above the mark at which it asks for a pause.
	windowSize = 1 << 20
	// windowPing is how many bytes one ping confirms at most, but for the last message.
	windowPing = windowSize / 4
)

// A window bounds what is on its way to the sidecar. A pause comes some time after the
// messages that caused it; on a machine that is busy enough a sidecar reads megabytes
// more before the agent has read the pause. So pings go out among the messages: the
// response to one comes behind whatever the sidecar had to say of the lines before it,
// and only so much is written ahead of the last one.
type window struct {
	mu              sync.Mutex
	sent, confirmed int64         // bytes of messages
	pings           []int64       // what was sent before each ping that has no response yet
	room            chan struct{} // closed when more may be sent; nil if nobody waits for that
}

// full returns a channel that is closed when there may be room; nil if there is room now.
func (w *window) full() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sent-w.confirmed < windowSize {
		return nil
	}
	if w.room == nil {
		w.room = make(chan struct{})
	}
	return w.room
}

// message adds a message, and a ping behind it if it is time for one.
func (w *window) message(b []byte, add func([]byte) []byte) []byte {
	before := len(b)
	b = add(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent += int64(len(b) - before)
	last := w.confirmed
	if n := len(w.pings); n > 0 {
		last = w.pings[n-1]
	}
	if w.sent-last < windowPing {
		return b
	}
	return w.pingLocked(b)
}

// ping adds a ping.
func (w *window) ping(b []byte) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pingLocked(b)
}

func (w *window) pingLocked(b []byte) []byte {
	w.pings = append(w.pings, w.sent)
	return wire.AppendPing(b)
}

// pong notes the response to the first ping that has none.
func (w *window) pong() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.pings) == 0 {
		return
	}
	w.confirmed = w.pings[0]
	w.pings = w.pings[1:]
	if w.room != nil && w.sent-w.confirmed < windowSize {
		close(w.room)
		w.room = nil
	}
}
