package sidecar

import (
	"cmp"
	"context"
	"crypto/rand"
	"io"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// streamPatience is how long the agent may take to take a stream, and linePatience a peer for its first line, which may be behind what
	// other streams carry.
	streamPatience = 10 * time.Second
	linePatience   = 20 * time.Second
	// streamsFactor is how many peers may have as many streams as one may have; more than that there are not, of all peers together.
	streamsFactor = 16
	// streamShare is the part of what other peers leave of them, 1/streamShare, that one peer gets: alone as many as it may have
	// open in both directions.
	streamShare = 7
)

// ErrEnds is the reason for which streams end with the sidecar.
var ErrEnds = rtc.ErrClosed

// A Stream is a stream of bytes to or from a peer.
type Stream interface {
	io.ReadWriteCloser
	CloseWrite() error
	Reset(code uint32) // ends it at once, with a code of wire's
	SetDeadline(t time.Time) error
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// streams are the streams of a sidecar's agent, in both directions.
type streams struct {
	secret string

	mu       sync.Mutex
	services map[string]struct{} // for which the agent listens
	offers   map[string]*offer   // that the agent has not taken
	relays   map[*relay]struct{}
	named    map[string]*relay // those of streams that the agent has named
	last     uint64            // id of an offer
	open     map[string]int    // streams with each peer, those that are being opened included
	all      int               // the same with all peers
}

// An offer is a stream of a peer that the agent has been told of.
type offer struct {
	stream Stream
	taken  chan struct{} // closed when the agent has taken or refused it
}

func newStreams() *streams {
	return &streams{secret: rand.Text(), services: make(map[string]struct{}), offers: make(map[string]*offer), relays: make(map[*relay]struct{}), named: make(map[string]*relay), open: make(map[string]int)}
}

// secretFor returns the secret for an agent with these features, "" if it knows no streams.
func (s *Sidecar) secretFor(features []string) string {
	if !slices.Contains(features, wire.FeatureStreams) {
		return ""
	}
	return s.streams.secret
}

// enter counts one stream more with a peer, unless there are too many: of all of them a peer gets a streamShare of what the others leave,
// so that no number of peers can take them all.
func (t *streams) enter(peer string, limits wire.Limits) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open[peer] >= (streamsFactor*cmp.Or(limits.MaxStreams, wire.DefaultMaxStreams)-t.all)/streamShare {
		return false
	}
	t.open[peer]++
	t.all++
	return true
}

// with returns how many streams there are with a peer.
func (t *streams) with(peer string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open[peer]
}

func (t *streams) leave(peer string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all--
	if t.open[peer]--; t.open[peer] == 0 {
		delete(t.open, peer)
	}
}

// listen notes that the agent listens for a service, or no longer does.
func (t *streams) listen(service string, on bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !on {
		delete(t.services, service)
		return nil
	}
	if _, again := t.services[service]; !again && len(t.services) == wire.MaxServices {
		return &wire.Error{Code: wire.CodeInvalidField, Text: "an agent listens for " + strconv.Itoa(wire.MaxServices) + " services at most"}
	}
	t.services[service] = struct{}{}
	return nil
}

// offer notes a stream that the agent is told of; nil if the agent does not listen for the service.
func (t *streams) offer(service string, s Stream) (id string, o *offer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.services[service]; !ok {
		return "", nil
	}
	t.last++
	id, o = strconv.FormatUint(t.last, 10), &offer{s, make(chan struct{})}
	t.offers[id] = o
	return id, o
}

// take removes and returns an offer, nil if there is none (any more).
func (t *streams) take(id string) *offer {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := t.offers[id]
	if o != nil {
		delete(t.offers, id)
		close(o.taken)
	}
	return o
}

// add notes a relay, unless there is one for a stream of that name.
func (t *streams) add(r *relay) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.named[r.id] != nil {
		return false
	}
	t.relays[r] = struct{}{}
	if r.id != "" {
		t.named[r.id] = r
	}
	return true
}

func (t *streams) remove(r *relay) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, added := t.relays[r]; added {
		delete(t.relays, r)
		delete(t.named, r.id)
	}
}

// leaving returns a channel that is closed once a stream to the peer has ended that the agent has closed already; nil if there is none.
func (t *streams) leaving(peer string) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	for r := range t.relays {
		if r.peer == peer && r.leaving() {
			return r.over
		}
	}
	return nil
}

// end handles that the agent has closed a stream, or with a reason given it up.
func (t *streams) end(id string, why wire.Code) {
	t.mu.Lock()
	r := t.named[id]
	t.mu.Unlock()
	if r != nil {
		r.end(why)
	}
}

// flush blocks until all that the agent has written to streams that it has closed was passed on, or ctx ends.
func (t *streams) flush(ctx context.Context) {
	t.mu.Lock()
	relays := slices.Collect(maps.Keys(t.relays))
	t.mu.Unlock()
	for _, r := range relays {
		if !r.closed.Load() {
			continue
		}
		select {
		case <-r.up:
		case <-ctx.Done():
		}
	}
}
