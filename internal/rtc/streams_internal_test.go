//go:build !js

package rtc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
)

// hastyChannel lets everybody else go on while it is being taken into use.
type hastyChannel struct{ *memoryChannel }

func (c hastyChannel) OnBufferedAmountLow(f func()) {
	c.memoryChannel.OnBufferedAmountLow(f)
	synctest.Wait()
}

// What the multiplexer writes while its channel is still being taken into use is sent, and so is all behind it.
func TestStreamsAreWrittenFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := connectEnds(t, description{stream: true, drain: true, streams: true})
		e.toFar.streams.make = func() {} // it is made below
		here, there := memoryChannels()
		if err := e.toFar.startStreams(hastyChannel{here}, true); err != nil {
			t.Fatal(err)
		}
		if _, err := e.toFar.OpenStream(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(there.in) == 0 {
			t.Error("nothing was written")
		}
		close(here.in)
	})
}

// The end of a link is no timeout of its streams, whatever pion has made of it.
func TestLinkEndIsNoTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := connectEnds(t, description{stream: true, drain: true, streams: true})
		e.toFar.streams.make = func() {}
		opened := make(chan error, 1)
		go func() {
			_, err := e.toFar.OpenStream(t.Context())
			opened <- err
		}()
		synctest.Wait()
		e.toFar.end(fmt.Errorf("%w: %w: %w: %w", ErrPeerClosed, context.DeadlineExceeded, os.ErrDeadlineExceeded, io.EOF))
		err := <-opened
		timeout := (net.Error)(nil)
		if !errors.Is(err, ErrPeerClosed) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
			errors.Is(err, io.EOF) || errors.As(err, &timeout) {
			t.Errorf("got %v", err)
		}
	})
}
