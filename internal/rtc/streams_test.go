//go:build !js

package rtc_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// open opens a stream from one agent to another.
func open(t *testing.T, from, to *agent) *rtc.Stream {
	t.Helper()
	s, err := from.peer(to.id).OpenStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// echoes sends random bytes over a stream whose other end sends them back.
func echoes(t *testing.T, s *rtc.Stream, size int) {
	t.Helper()
	sent := make([]byte, size)
	_, _ = rand.Read(sent)
	var wg sync.WaitGroup
	wg.Go(func() {
		if n, err := s.Write(sent); n != size || err != nil {
			t.Errorf("Write: %d, %v", n, err)
		}
		if err := s.CloseWrite(); err != nil {
			t.Errorf("CloseWrite: %v", err)
		}
	})
	got, err := io.ReadAll(s)
	wg.Wait()
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back, of %d, %v", len(got), size, err)
	}
}

// Either end opens streams, also both at once, and the other end gets them.
func TestStreams(t *testing.T) {
	_, a, b := pair(t)
	var both sync.WaitGroup
	for _, way := range [][2]*agent{{a, b}, {b, a}} {
		both.Go(func() { echoes(t, open(t, way[0], way[1]), 1<<20) })
	}
	both.Wait()
	for range 200 { // more than may be open at a time
		s := open(t, a, b)
		echoes(t, s, 1000)
		_ = s.Close()
	}
	exchangeOne(t, a, b)
}

// A reader that does not read holds up its own stream only.
func TestStreamsHoldUpNothing(t *testing.T) {
	_, a, b := pair(t)
	b.onStream = func(s *rtc.Stream) { // reads nothing of streams that begin with 0, and echoes others
		go func() {
			first := make([]byte, 1)
			if _, err := io.ReadFull(s, first); err != nil || first[0] == 0 {
				return
			}
			_, _ = io.Copy(s, s)
			_ = s.Close()
		}()
	}
	full := open(t, a, b)
	if err := full.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := full.Write(make([]byte, 32<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) || n > 8<<20 {
		t.Errorf("Write: %d, %v", n, err)
	}
	s := open(t, a, b)
	if _, err := s.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	echoes(t, s, 1<<20)
	exchangeOne(t, a, b)
}

// No more streams are opened than the peer allows, and others may be when some have ended.
func TestTooManyStreams(t *testing.T) {
	_, a, b := pair(t, func(c *rtc.Config) { c.Limits.MaxStreams = 4 })
	var all []*rtc.Stream
	for range 4 {
		all = append(all, open(t, a, b))
	}
	open(t, b, a) // it has a limit of its own
	if _, err := a.peer("b").OpenStream(t.Context()); !errors.Is(err, rtc.ErrTooManyStreams) {
		t.Errorf("OpenStream: %v", err)
	}
	for _, s := range all {
		_ = s.Close()
	}
	testutil.Eventually(t, "room", func() bool {
		s, err := a.peer("b").OpenStream(t.Context())
		if err != nil {
			return false
		}
		echoes(t, s, 100)
		_ = s.Close()
		return true
	})
}

// Who opens more streams than it may is refused; who goes on all the same loses the link.
func TestStreamsOverLimit(t *testing.T) {
	_, a, b := pair(t, func(c *rtc.Config) { c.Limits.MaxStreams = 4 })
	a.peer("b").AllowStreams(1000)
	b.onStream = func(s *rtc.Stream) { go func() { _, _ = io.Copy(s, s) }() } // and does not close
	for range 8 {                                                             // twice as many, since it may be late to learn that others have ended
		s := open(t, a, b)
		if _, err := s.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	one := open(t, a, b)
	_, _ = one.Write([]byte("x"))
	reset := (*rtc.ResetError)(nil)
	if _, err := one.Read(make([]byte, 1)); !errors.As(err, &reset) || reset.Code != wire.ResetFull {
		t.Errorf("Read: %v", err)
	}
	exchangeOne(t, a, b)
	var opens []byte
	for i := range 100 { // with ids of the end that has made the channel, and of the other one
		opens = append(opens, 0, 1, 0, 1, 0, 0, 1, byte(i), 0, 0, 0, 0)
	}
	a.peer("b").InjectStreams(opens)
	testutil.Eventually(t, "the end", func() bool { return b.peer("a") == nil })
	if reason := get(b.recorder, func() error { return b.reasons[0] }); !errors.Is(reason, rtc.ErrViolation) {
		t.Errorf("the link ended: %v", reason)
	}
}

// Closing a stream does not cut off what was written, has the peer's writes fail, and blocks neither during an outage.
func TestStreamClose(t *testing.T) {
	_, a, b, ca, cb := cables(t)
	taken := make(chan *rtc.Stream, 1)
	b.onStream = func(s *rtc.Stream) { taken <- s }
	s := open(t, a, b)
	if _, err := s.Write(make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for _, f := range []func() error{
		s.Close, s.CloseWrite,
		func() error { _, err := s.Write([]byte("x")); return err },
		func() error { _, err := s.Read(make([]byte, 1)); return err },
		func() error { return s.SetDeadline(time.Now()) },
	} {
		if err := f(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
	far := <-taken
	reset := (*rtc.ResetError)(nil)
	var err error
	for err == nil {
		_, err = far.Write(make([]byte, 1000))
	}
	if !errors.As(err, &reset) || reset.Code != wire.ResetClosed {
		t.Errorf("Write to a closed stream: %v", err)
	}
	if got, err := io.ReadAll(far); len(got) != 100_000 || err != nil {
		t.Errorf("%d bytes arrived, %v", len(got), err)
	}
	full := open(t, a, b)
	ca.cut.Store(true)
	cb.cut.Store(true)
	if err := full.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := full.Write(make([]byte, 32<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write: %v", err)
	}
	if err := full.CloseWrite(); err != nil {
		t.Error(err)
	}
	if err := full.Close(); err != nil {
		t.Error(err)
	}
}

// A flush waits for what was written to streams, and for its end.
func TestFlushStreams(t *testing.T) {
	_, a, b := pair(t)
	got := make(chan int, 1)
	b.onStream = func(s *rtc.Stream) {
		go func() {
			all, err := io.ReadAll(s)
			if err != nil {
				t.Error(err)
			}
			got <- len(all)
		}()
	}
	s := open(t, a, b)
	if _, err := s.Write(make([]byte, 200_000)); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if err := a.Node.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if n := <-got; n != 200_000 {
		t.Errorf("%d bytes arrived", n)
	}
}

// A reset ends both ends of a stream, with its code at the other one.
func TestStreamReset(t *testing.T) {
	_, a, b := pair(t)
	b.onStream = func(s *rtc.Stream) { s.Reset(7) }
	s := open(t, a, b)
	_, err := s.Read(make([]byte, 1))
	reset := (*rtc.ResetError)(nil)
	if !errors.As(err, &reset) || reset.Code != 7 || !errors.Is(err, rtc.ErrStreamReset) {
		t.Errorf("Read: %v", err)
	}
}

// Streams end with the link, and outlast an outage that it survives.
func TestStreamsAndLink(t *testing.T) {
	_, a, b, ca, cb := cables(t)
	s := open(t, a, b)
	if _, err := s.Write([]byte("before")); err != nil {
		t.Fatal(err)
	}
	ca.cut.Store(true)
	cb.cut.Store(true)
	testutil.Eventually(t, "the interruption", func() bool { return a.Recovering("b") && b.Recovering("a") })
	ca.cut.Store(false)
	cb.cut.Store(false)
	got := make([]byte, 6)
	if _, err := io.ReadFull(s, got); err != nil || string(got) != "before" {
		t.Errorf("%q, %v", got, err)
	}
	go b.close(t)
	if _, err := s.Read(got); !errors.Is(err, rtc.ErrPeerClosed) {
		t.Errorf("Read after the end of the link: %v", err)
	}
	if _, err := s.Write(got); err == nil {
		t.Error("Write after the end of the link")
	}
	testutil.Eventually(t, "the end of the link", func() bool { return a.peer("b") == nil })
}

// Peers of an earlier version have none.
func TestNoStreams(t *testing.T) {
	h := newHub(t)
	h.setFilter(tampering(t, func(_ string, d *signal.Description) { d.Caps = []string{"jsonl", "restart", "drain"} }))
	a, b := start(t, h, "a").join(), start(t, h, "b").join()
	linked(t, a, b)
	if _, err := a.peer("b").OpenStream(t.Context()); !errors.Is(err, rtc.ErrNoStreams) || a.peer("b").Streams() {
		t.Errorf("OpenStream: %v", err)
	}
}

// Messages go ahead of streams, and streams are not starved by them.
func TestStreamsAreTheLastLane(t *testing.T) {
	_, a, b := pair(t)
	b.onStream = func(s *rtc.Stream) { go func() { _, _ = io.Copy(io.Discard, s) }() }
	s := open(t, a, b)
	stop := make(chan struct{})
	var bulk sync.WaitGroup
	var wrote int
	bulk.Go(func() {
		for b := make([]byte, 64<<10); ; wrote += len(b) {
			select {
			case <-stop:
				return
			default:
				if _, err := s.Write(b); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	for i := range 500 {
		testutil.Eventually(t, "room", func() bool { return a.peer("b").Send([]byte(message(i, 64<<10)), wire.LaneOrdered) == nil })
	}
	testutil.Eventually(t, "the messages", func() bool { return len(b.received("a")) == 500 })
	close(stop)
	_ = s.SetWriteDeadline(time.Now().Add(time.Minute))
	bulk.Wait()
	if wrote < 1<<20 {
		t.Errorf("%d bytes of a stream passed beside 32 MB of messages", wrote)
	}
}

// Streams that are given up before the peer has answered, many in a row during an outage, do not come to it all at once.
func TestStreamsGivenUp(t *testing.T) {
	_, a, b, ca, cb := cables(t, func(c *rtc.Config) { c.Limits.MaxStreams = 4 })
	s := open(t, a, b)
	echoes(t, s, 100)
	_ = s.Close()
	ca.cut.Store(true)
	cb.cut.Store(true)
	for range 200 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		if s, err := a.peer("b").OpenStream(ctx); err == nil {
			_, _ = s.Write([]byte("x"))
			s.Reset(wire.ResetAbandoned)
		}
		cancel()
	}
	ca.cut.Store(false)
	cb.cut.Store(false)
	testutil.Eventually(t, "a stream", func() bool {
		s, err := a.peer("b").OpenStream(t.Context())
		if err != nil {
			return false
		}
		defer s.Close()
		_, err = s.Write([]byte("x"))
		if err == nil {
			_, err = io.ReadFull(s, make([]byte, 1))
		}
		return err == nil
	})
	exchangeOne(t, a, b)
}
