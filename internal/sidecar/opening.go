package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/wire"
)

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
