package sidecar

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// streamPatience is how long a peer may take for the first line of a stream, and the agent to take one.
	streamPatience = 10 * time.Second
	// streamsFactor is how many peers may have as many streams as one may have; more than that there are not, of all peers together.
	streamsFactor = 16
)

// A Stream is a stream of bytes to or from a peer.
type Stream interface {
	io.ReadWriteCloser
	CloseWrite() error
	Reset(code uint32) // ends it at once
	SetDeadline(t time.Time) error
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// The codes with which a stream is reset before it is open. A multiplexer that has no room uses 0.
const (
	resetFull uint32 = iota
	resetNoService
	resetRefused
	resetMalformed
)

// streams are the streams of a sidecar's agent, in both directions.
type streams struct {
	secret string

	mu       sync.Mutex
	services map[string]struct{} // for which the agent listens
	offers   map[string]*offer   // that the agent has not taken
	last     uint64              // id of an offer
	open     int                 // streams, those that are being opened included
}

// An offer is a stream of a peer that the agent has been told of.
type offer struct {
	stream Stream
	taken  chan struct{} // closed when the agent has taken or refused it
}

func newStreams() *streams {
	return &streams{secret: rand.Text(), services: make(map[string]struct{}), offers: make(map[string]*offer)}
}

// secretFor returns the secret for an agent with these features, "" if it knows no streams.
func (s *Sidecar) secretFor(features []string) string {
	if !slices.Contains(features, wire.FeatureStreams) {
		return ""
	}
	return s.streams.secret
}

// enter counts one stream more, unless there are too many.
func (t *streams) enter(limits wire.Limits) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open >= streamsFactor*cmp.Or(limits.MaxStreams, wire.DefaultMaxStreams) {
		return false
	}
	t.open++
	return true
}

func (t *streams) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open--
}

func (t *streams) listen(service string, on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if on {
		t.services[service] = struct{}{}
	} else {
		delete(t.services, service)
	}
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

// A counted stream gives its place back when it is closed or reset.
type counted struct {
	Stream
	once sync.Once
	done func()
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
	if !s.streams.enter(s.limits) {
		st.Reset(resetFull)
		return
	}
	c := &counted{Stream: st, done: s.streams.leave}
	s.work.Go(func() {
		if code, err := s.offerStream(l, c); err != nil {
			s.outside.Debug(l.ID()).Str("peer", l.ID()).Str("error", logs.Error(err)).Msg("stream refused")
			c.Reset(code)
		}
	})
}

// offerStream offers a peer's stream to the agent. The error says why it was not taken.
func (s *Sidecar) offerStream(l peerLink, st Stream) (code uint32, err error) {
	line, err := readStreamLine(st)
	if err != nil {
		return resetMalformed, err
	}
	service, err := wire.ParseStreamOpen(line)
	if err != nil {
		return resetMalformed, err
	}
	id, o := s.streams.offer(service, st)
	if o == nil {
		return resetNoService, fmt.Errorf("nobody listens for %q", logs.Cut(service))
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
	return resetRefused, errors.New("the agent did not take it")
}

// readStreamLine reads the first line of a stream, and nothing behind it.
func readStreamLine(st Stream) ([]byte, error) {
	if err := st.SetReadDeadline(time.Now().Add(streamPatience)); err != nil {
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
	if !s.streams.enter(s.limits) {
		return nil, &wire.Error{Code: wire.CodeTooManyStreams, Text: "this agent has as many streams as it may have"}
	}
	st, err := s.network.openStream(ctx, p.peerLink)
	if err != nil {
		s.streams.leave()
		return nil, err
	}
	c := &counted{Stream: st, done: s.streams.leave}
	stop := context.AfterFunc(ctx, func() { c.Reset(resetRefused) })
	err = askFor(c, service)
	if !stop() {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		c.Reset(resetRefused)
		return nil, StreamError(err)
	}
	return c, nil
}

// askFor sends the first line of a stream and waits for the response.
func askFor(st Stream, service string) error {
	if _, err := st.Write(wire.AppendStreamOpen(nil, service)); err != nil {
		return err
	}
	line, err := readStreamLine(st)
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
	case !errors.As(err, &reset):
		return &wire.Error{Code: wire.CodePeerLost, Text: err.Error()}
	}
	switch reset.Code {
	case resetFull:
		return &wire.Error{Code: wire.CodeTooManyStreams, Text: "the peer has as many streams as it may have"}
	case resetNoService:
		return &wire.Error{Code: wire.CodeNoService, Text: "nobody listens for the service at the peer"}
	case resetRefused:
		return &wire.Error{Code: wire.CodeRefused, Text: "the peer has refused the stream"}
	}
	return &wire.Error{Code: wire.CodeStreamReset, Text: "the peer has reset the stream"}
}

// takeStream gives the agent a stream that it was told of.
func (s *Sidecar) takeStream(id string) (Stream, error) {
	o := s.streams.take(id)
	if o == nil {
		return nil, &wire.Error{Code: wire.CodeStreamReset, Text: "no such stream waits"}
	}
	if _, err := o.stream.Write(wire.AppendStreamOpened(nil)); err != nil {
		o.stream.Reset(resetRefused)
		return nil, StreamError(err)
	}
	return o.stream, nil
}

// refuseStream refuses a stream that the agent was told of.
func (s *Sidecar) refuseStream(w wire.Stream) {
	o := s.streams.take(w.Stream)
	if o == nil {
		return
	}
	code := resetRefused
	if w.Code == wire.CodeTooManyStreams {
		code = resetFull
	}
	o.stream.Reset(code)
}

// A Door is where an agent gets the streams of its sidecar: by itself in the process of the sidecar, else by connections to the socket.
type Door struct {
	mu      sync.Mutex
	sidecar *Sidecar
}

func (d *Door) open(s *Sidecar) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sidecar = s
}

// agent returns the sidecar behind the door, nil if there is none.
func (d *Door) agent() *Sidecar {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sidecar
}

// Stream opens a stream to a service of a peer, or takes one that the agent was told of, as the first line of a connection for a
// stream says. The error is a *wire.Error, or the cause of ctx.
func (d *Door) Stream(ctx context.Context, r wire.Stream) (Stream, error) {
	s := d.agent()
	switch {
	case s == nil || subtle.ConstantTimeCompare([]byte(r.Secret), []byte(s.streams.secret)) != 1:
		return nil, &wire.Error{Code: wire.CodeUnauthorized, Text: "not the secret of ready"}
	case r.PeerID == "":
		return s.takeStream(r.Stream)
	}
	return s.openStream(ctx, r.PeerID, r.Service)
}
