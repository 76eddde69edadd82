package mesh

import (
	"strings"
	"sync"
)

// calls are the requests that wait for their response: pure bookkeeping,
// without goroutines, clocks or I/O. A call ends exactly once, by whatever
// happens first: its response, its caller, its peer's or its sidecar's end.
type calls struct {
	mu      sync.Mutex
	pending map[callKey]*call
	ended   error // set once by end: no further calls
}

// A request id is unique towards one peer. The peer is part of the key, so a
// response counts only when it comes from the peer that was asked.
type callKey struct{ peer, id string }

type call struct {
	key  callKey
	done chan result // buffered 1, sent to exactly once
}

type result struct {
	reply *Message
	err   error
}

// add registers a call. It must happen before the request is written: a
// response may arrive before the write returns.
func (c *calls) add(peer, id string) (*call, error) {
	k := callKey{peer, id}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return nil, c.ended
	}
	if c.pending[k] != nil {
		return nil, ErrDuplicate
	}
	if c.pending == nil {
		c.pending = make(map[callKey]*call)
	}
	p := &call{key: k, done: make(chan result, 1)}
	c.pending[k] = p
	return p, nil
}

// reply ends the call that waits for the message, if any.
func (c *calls) reply(m *Message) bool {
	return c.finish(callKey{m.From, m.RequestID}, result{reply: m})
}

// fail ends one call with an error, if it is still pending.
func (c *calls) fail(peer, id string, err error) bool {
	return c.finish(callKey{peer, id}, result{err: err})
}

func (c *calls) finish(k callKey, r result) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pending[k]
	if p == nil {
		return false
	}
	delete(c.pending, k)
	p.done <- r
	return true
}

// drop forgets a call whose caller gave up, and reports whether it was still
// pending; if not, its result is in done.
func (c *calls) drop(p *call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending[p.key] != p {
		return false
	}
	delete(c.pending, p.key)
	return true
}

// failPeer ends every call to one peer.
func (c *calls) failPeer(peer string, err error) {
	c.failIf(func(k callKey) bool { return k.peer == peer }, err)
}

// failAll ends every call; later ones may follow.
func (c *calls) failAll(err error) {
	c.failIf(func(callKey) bool { return true }, err)
}

func (c *calls) failIf(match func(callKey) bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, p := range c.pending {
		if match(k) {
			delete(c.pending, k)
			p.done <- result{err: err}
		}
	}
}

// end fails every call, and each that anyone tries to add afterwards.
func (c *calls) end(err error) {
	c.mu.Lock()
	c.ended = err
	c.mu.Unlock()
	c.failAll(err)
}

// The conventions of chatixia agents about message types. Requests end in one
// of these, and a response replaces that by _response.
var requestSuffixes = [...]string{"_request", "_query", "_prompt"}

const (
	typePing       = "ping"
	typePong       = "pong"
	responseSuffix = "_response"
	chunkSuffix    = "_stream_chunk"
)

// canRespond tells whether a message of this type may be the response to a
// request. Chunks of a streamed answer carry the request's id and come before
// its response; a request that happens to carry our id is still a request.
func canRespond(typ string) bool {
	return typ != typePing && !strings.HasSuffix(typ, chunkSuffix) && !isRequestType(typ)
}

// wantsReply tells whether a message that no call waits for is a request.
// Requests of types outside the convention count, but never a response that
// comes late: answering it would set off an endless exchange of errors.
func wantsReply(typ, id string) bool {
	return id != "" && typ != typePong && !strings.HasSuffix(typ, responseSuffix) && !strings.HasSuffix(typ, chunkSuffix)
}

func isRequestType(typ string) bool {
	for _, s := range requestSuffixes {
		if strings.HasSuffix(typ, s) {
			return true
		}
	}
	return false
}

// responseType is the type of the response to a request.
func responseType(typ string) string {
	if typ == typePing {
		return typePong
	}
	for _, s := range requestSuffixes {
		if base, ok := strings.CutSuffix(typ, s); ok {
			return base + responseSuffix
		}
	}
	return typ + responseSuffix
}
