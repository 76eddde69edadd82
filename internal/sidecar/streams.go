package sidecar

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh/internal/logs"
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

// A counted stream gives its place back when it is closed or reset, and its bytes count.
type counted struct {
	Stream
	peer *peer
	once sync.Once
	done func()
}

func (s *Sidecar) counted(p *peer, st Stream) *counted {
	return &counted{Stream: st, peer: p, done: func() { s.streams.leave(p.ID()) }}
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Stream.Read(b)
	c.peer.in.bytes.Add(int64(n))
	return n, err
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Stream.Write(b)
	c.peer.out.bytes.Add(int64(n))
	return n, err
}

func (c *counted) Close() error {
	defer c.once.Do(c.done)
	return c.Stream.Close()
}

func (c *counted) Reset(code uint32) {
	defer c.once.Do(c.done)
	c.Stream.Reset(code)
}

// peerStream handles a stream that a peer has opened.
func (s *Sidecar) peerStream(l peerLink, st Stream) {
	p := s.peerOf(l)
	if p == nil || !s.streams.enter(l.ID(), s.limits) {
		st.Reset(wire.ResetFull)
		return
	}
	c := s.counted(p, st)
	s.work.Go(func() {
		if code, err := s.offerStream(l, c); err != nil {
			s.outside.Debug(l.ID()).Str("peer", l.ID()).Str("error", logs.Error(err)).Msg("stream refused")
			c.Reset(code)
		}
	})
}

// offerStream offers a peer's stream to the agent. The error says why it was not taken.
func (s *Sidecar) offerStream(l peerLink, st Stream) (code uint32, err error) {
	line, err := readStreamLine(st, time.Now().Add(linePatience))
	if err != nil {
		return wire.ResetMalformed, err
	}
	service, err := wire.ParseStreamOpen(line)
	if err != nil {
		return wire.ResetMalformed, err
	}
	id, o := s.streams.offer(service, st)
	if o == nil {
		return wire.ResetNoService, fmt.Errorf("nobody listens for %q", logs.Cut(service))
	}
	s.tell(wire.FeatureStreams, nil, func(b []byte) []byte {
		return wire.AppendStream(b, wire.TypeStream, wire.Stream{Stream: id, PeerID: l.ID(), Service: service})
	})
	late := time.NewTimer(streamPatience)
	defer late.Stop()
	select {
	case <-o.taken:
		return 0, nil
	case <-late.C:
	case <-s.ending:
	}
	if s.streams.take(id) == nil {
		return 0, nil // taken at the last moment
	}
	return wire.ResetRefused, errors.New("the agent did not take it")
}

// readStreamLine reads the first line of a stream, and nothing behind it, until a deadline, the zero time for none.
func readStreamLine(st Stream, until time.Time) ([]byte, error) {
	if err := st.SetReadDeadline(until); err != nil {
		return nil, err
	}
	line := make([]byte, 0, 64)
	for one := make([]byte, 1); ; line = append(line, one[0]) {
		if _, err := io.ReadFull(st, one); err != nil {
			return nil, fmt.Errorf("first line of a stream: %w", err)
		}
		if one[0] == '\n' {
			return line, st.SetReadDeadline(time.Time{})
		}
		if len(line) == wire.MaxStreamLine {
			return nil, fmt.Errorf("first line of a stream of over %d bytes", wire.MaxStreamLine)
		}
	}
}

// openStream opens a stream to a service of a peer. The error is a *wire.Error, or the cause of ctx.
func (s *Sidecar) openStream(ctx context.Context, peer, service string) (Stream, error) {
	if err := wire.CheckService(service); err != nil {
		return nil, err
	}
	p := s.peer([]byte(peer))
	if p == nil {
		return nil, &wire.Error{Code: wire.CodePeerNotConnected, Text: "no link to " + logs.Cut(peer)}
	}
	if !s.streams.enter(peer, s.limits) {
		return nil, &wire.Error{Code: wire.CodeTooManyStreams, Text: "this agent has as many streams as it may have"}
	}
	st, err := s.network.openStream(ctx, p.peerLink)
	if err != nil {
		s.streams.leave(peer)
		return nil, err
	}
	c := s.counted(p, st)
	if err := under(ctx, c, func() error { return askFor(c, service) }); err != nil {
		return nil, err
	}
	return c, nil
}

// under calls f, which does something with a stream, and gives the stream up when f fails or ctx ends before. The error is a
// *wire.Error, or the cause of ctx.
func under(ctx context.Context, st Stream, f func() error) error {
	stop := context.AfterFunc(ctx, func() { st.Reset(wire.ResetAbandoned) })
	err := f()
	switch {
	case !stop():
		return context.Cause(ctx)
	case err != nil:
		st.Reset(wire.ResetAbandoned)
		return StreamError(err)
	}
	return nil
}

// askFor sends the first line of a stream and waits for the response.
func askFor(st Stream, service string) error {
	if _, err := st.Write(wire.AppendStreamOpen(nil, service)); err != nil {
		return err
	}
	line, err := readStreamLine(st, time.Time{}) // the peer's agent may take its time; who opens the stream has a limit
	if err == nil {
		err = wire.ParseStreamOpened(line)
	}
	return err
}

// StreamError returns what is wrong with a stream that could not be opened, or has ended, as the agent is told.
func StreamError(err error) *wire.Error {
	var reset *rtc.ResetError
	var already *wire.Error
	switch {
	case errors.As(err, &already):
		return already
	case errors.Is(err, rtc.ErrNoStreams):
		return &wire.Error{Code: wire.CodeNoStreams, Text: err.Error()}
	case errors.Is(err, rtc.ErrTooManyStreams):
		return &wire.Error{Code: wire.CodeTooManyStreams, Text: err.Error()}
	case !errors.As(err, &reset):
		return &wire.Error{Code: wire.CodePeerLost, Text: err.Error()}
	}
	switch reset.Code {
	case wire.ResetFull:
		return &wire.Error{Code: wire.CodeTooManyStreams, Text: "the peer has as many streams as it may have"}
	case wire.ResetNoService:
		return &wire.Error{Code: wire.CodeNoService, Text: "nobody listens for the service at the peer"}
	case wire.ResetRefused:
		return &wire.Error{Code: wire.CodeRefused, Text: "the peer has refused the stream"}
	}
	text := "the peer has given the stream up"
	if reset.Code == wire.ResetClosed {
		text = "the peer has closed the stream"
	}
	return &wire.Error{Code: wire.CodeStreamReset, Text: text}
}

// takeStream gives the agent a stream that it was told of.
func (s *Sidecar) takeStream(ctx context.Context, id string) (Stream, error) {
	o := s.streams.take(id)
	if o == nil {
		return nil, &wire.Error{Code: wire.CodeStreamReset, Text: "no such stream waits"}
	}
	if err := under(ctx, o.stream, func() error {
		_, err := o.stream.Write(wire.AppendStreamOpened(nil))
		return err
	}); err != nil {
		return nil, err
	}
	return o.stream, nil
}

// refuseStream refuses a stream that the agent was told of.
func (s *Sidecar) refuseStream(w wire.Stream) {
	o := s.streams.take(w.Stream)
	if o == nil {
		return
	}
	code := wire.ResetRefused
	if w.Code == wire.CodeTooManyStreams {
		code = wire.ResetFull
	}
	o.stream.Reset(code)
}
