//go:build !js

package rtc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// memoryChannel is one end of a data channel in memory, which acknowledges nothing before acknowledge is called.
type memoryChannel struct {
	in  chan channelMessage
	got channelMessage // and not read, since it did not fit
	far *memoryChannel

	mu      sync.Mutex
	unacked uint64
	low     uint64
	onLow   func()
}

type channelMessage struct {
	b    []byte
	text bool
}

func memoryChannels() (a, b *memoryChannel) {
	a, b = &memoryChannel{in: make(chan channelMessage, 100)}, &memoryChannel{in: make(chan channelMessage, 100)}
	a.far, b.far = b, a
	return a, b
}

func (c *memoryChannel) ReadDataChannel(b []byte) (int, bool, error) {
	msg := c.got
	if msg.b == nil {
		var ok bool
		if msg, ok = <-c.in; !ok {
			return 0, false, io.EOF
		}
	}
	if c.got = msg; len(msg.b) > len(b) {
		return 0, false, io.ErrShortBuffer
	}
	c.got = channelMessage{}
	return copy(b, msg.b), msg.text, nil
}

func (c *memoryChannel) WriteDataChannel(b []byte, text bool) (int, error) {
	c.mu.Lock()
	c.unacked += uint64(len(b))
	c.mu.Unlock()
	c.far.in <- channelMessage{append([]byte(nil), b...), text}
	return len(b), nil
}

func (c *memoryChannel) BufferedAmount() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unacked
}

func (c *memoryChannel) SetBufferedAmountLowThreshold(n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.low = n
}

func (c *memoryChannel) OnBufferedAmountLow(f func()) { c.onLow = f }

func (c *memoryChannel) SetReadDeadline(time.Time) error { return nil }

// acknowledge acknowledges all but rest bytes.
func (c *memoryChannel) acknowledge(rest uint64) {
	c.mu.Lock()
	fell := c.unacked > c.low && rest <= c.low
	c.unacked = rest
	c.mu.Unlock()
	if fell {
		c.onLow()
	}
}

// events are Events that only count messages, each after onLine.
type events struct {
	Events
	onLine func()

	mu    sync.Mutex
	lines int
	wrong []error
}

func (*events) PeerConnected(*Peer)           {}
func (*events) PeerDisconnected(*Peer, error) {}

func (e *events) PeerLine(*Peer, *wire.PeerLine) {
	if e.onLine != nil {
		e.onLine()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lines++
}

func (e *events) PeerStream(*Peer, *Stream) {}

func (e *events) PeerRejected(_ *Peer, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.wrong = append(e.wrong, err)
}

// ends are two nodes with a peer link between them.
type ends struct {
	near, far       *Node
	toFar, toNear   *Peer
	nearDC, farDC   *memoryChannel
	nearEvs, farEvs events
}

// connectEnds makes ends whose link has come up. Everything that it wrote is acknowledged.
func connectEnds(t *testing.T, remote description) *ends {
	t.Helper()
	e := &ends{}
	e.nearDC, e.farDC = memoryChannels()
	e.near, e.toFar = startEnd(remote, e.nearDC, &e.nearEvs)
	e.far, e.toNear = startEnd(remote, e.farDC, &e.farEvs)
	if !remote.stream {
		e.toFar.announce()
		e.toNear.announce()
	}
	synctest.Wait()
	e.nearDC.acknowledge(0)
	e.farDC.acknowledge(0)
	t.Cleanup(func() {
		for _, p := range []*Peer{e.toFar, e.toNear} {
			p.end(ErrClosed)
		}
		close(e.nearDC.in)
		close(e.farDC.in)
		synctest.Wait()
	})
	return e
}

func startEnd(remote description, dc dataChannel, ev Events) (*Node, *Peer) {
	n := &Node{peers: make(map[*Peer]struct{}), cfg: Config{}.withDefaults()}
	p := newPeer(identity.Link{Other: "far"}, remote, dc, maxMessageSize, noRoundTrip, &n.cfg, ev)
	p.up, p.down = func() {}, func(error) {}
	n.start(p)
	return n, p
}

// flushing runs a Flush of the near end in the background.
func (e *ends) flushing(ctx context.Context) (result chan error) {
	result = make(chan error, 1)
	go func() { result <- e.near.Flush(ctx) }()
	synctest.Wait()
	return result
}

func checkFlushed(t *testing.T, result chan error, when string, want bool) {
	t.Helper()
	synctest.Wait()
	if got := len(result) == 1; got != want {
		t.Fatalf("%s: Flush has returned: %t", when, got)
	}
	if want {
		if err := <-result; err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
}

var (
	withDrain = description{stream: true, drain: true}
	framings  = map[string]description{"base": {}, "stream": {stream: true}, "drain": withDrain}
)

// mustSend sends and lets the far end read.
func (e *ends) mustSend(t *testing.T, msg string) {
	t.Helper()
	if err := e.toFar.Send([]byte(msg), ordered); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

// One round trip suffices: SCTP's acknowledgement need not have come.
func TestFlushEndsWithDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := connectEnds(t, withDrain)
		release := make(chan struct{})
		e.farEvs.onLine = func() { <-release }
		e.mustSend(t, `{"type":"x"}`)
		result := e.flushing(t.Context())
		checkFlushed(t, result, "the message is being delivered", false)
		close(release)
		checkFlushed(t, result, "the message is delivered", true)
		if e.nearDC.BufferedAmount() == 0 {
			t.Error("it was acknowledged: this shows nothing")
		}
		if e.farEvs.lines != 1 || e.farEvs.wrong != nil {
			t.Errorf("%d messages, rejected: %v", e.farEvs.lines, e.farEvs.wrong)
		}
	})
}

// With or without drain, the acknowledgement suffices, and nothing else does.
func TestFlushEndsWithAcknowledgement(t *testing.T) {
	for name, remote := range framings {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := connectEnds(t, remote)
				e.toNear.SetReading(false)
				e.mustSend(t, `{"type":"x"}`) // the reader had begun, and reads one more
				e.mustSend(t, `{"type":"x"}`)
				first, second := e.flushing(t.Context()), e.flushing(t.Context())
				e.nearDC.acknowledge(1)
				checkFlushed(t, first, "but for one byte", false)
				e.nearDC.acknowledge(0)
				checkFlushed(t, first, "acknowledged", true)
				checkFlushed(t, second, "acknowledged", true)
				checkFlushed(t, e.flushing(t.Context()), "nothing to flush", true)
			})
		})
	}
}

// A peer that does not read costs no more than the context's bound.
func TestFlushIsBounded(t *testing.T) {
	for name, remote := range framings {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := connectEnds(t, remote)
				e.toNear.SetReading(false)
				e.mustSend(t, `{"type":"x"}`)
				e.mustSend(t, `{"type":"x"}`)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				err := e.near.Flush(ctx)
				if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), `"far"`) {
					t.Errorf("got %v", err)
				}
				if n := e.toFar.flushes.latest(); n != 0 {
					t.Errorf("flush %d is kept", n)
				}
				result := e.flushing(t.Context())
				if remote.drain {
					e.toNear.SetReading(true)
				} else {
					e.nearDC.acknowledge(0)
				}
				checkFlushed(t, result, "the peer goes on", true)
			})
		})
	}
}

// The end of a link ends the flushes of its peer: PeerDisconnected stands for what was lost.
func TestFlushEndsWithLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := connectEnds(t, withDrain)
		e.toNear.SetReading(false)
		e.mustSend(t, `{"type":"x"}`)
		e.mustSend(t, `{"type":"x"}`)
		result := e.flushing(t.Context())
		checkFlushed(t, result, "the peer does not read", false)
		e.toFar.end(ErrUnreachable)
		checkFlushed(t, result, "the link has ended", true)
	})
}

// Unsent returns what was not acknowledged: by a peer that does not read, without the drain, and by one whose link has
// ended, unless it has left; of both also what is queued. A peer that has everything is not among them, though SCTP holds back the
// acknowledgement.
func TestUnsent(t *testing.T) {
	const msg = `{"type":"x"}`
	for name, remote := range framings {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := connectEnds(t, remote)
				bounded := func() map[string]int {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					got := make(map[string]int)
					for id, lanes := range e.near.Unsent(ctx) {
						got[id] = lanes[ordered]
						if lanes[wire.LaneCalls] != 0 {
							t.Errorf("of calls, of which there are none: %v", lanes)
						}
					}
					return got
				}
				if remote.drain {
					e.mustSend(t, msg)
					if got := bounded(); len(got) > 0 || e.nearDC.BufferedAmount() == 0 {
						t.Errorf("delivered, but not acknowledged: got %v", got)
					}
				}
				e.nearDC.acknowledge(0)
				e.toNear.SetReading(false)
				e.mustSend(t, msg) // the reader had begun, and reads one more
				e.nearDC.acknowledge(0)
				e.mustSend(t, msg)
				want := len(msg)
				if remote.stream {
					want++
				}
				if got := bounded(); len(got) != 1 || got["far"] != want {
					t.Errorf("it does not read: got %v, want %d", got, want)
				}
				if remote.stream {
					queued := strings.Repeat(" ", 700<<10) + msg // more than the data channel takes
					if err := e.toFar.Send([]byte(queued), ordered); err != nil {
						t.Fatal(err)
					}
					want += len(queued)
				}
				reason := fmt.Errorf("%w: at last", ErrUnreachable)
				if name == "stream" {
					reason, want = fmt.Errorf("%w: goodbye", ErrPeerClosed), 0
				}
				time.AfterFunc(time.Second, func() { e.toFar.end(reason) })
				if got := bounded(); got["far"] < want || want == 0 && len(got) > 0 {
					t.Errorf("its link ends, %v: got %v, want %d", reason, got, want)
				}
			})
		})
	}
}

// A drained that nothing asked for, or for an earlier flush, ends no flush; a wrong one is dropped.
func TestFlushIgnoresOtherDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := connectEnds(t, withDrain)
		e.toNear.SetReading(false)
		e.mustSend(t, `{"type":"x"}`)
		e.mustSend(t, `{"type":"x"}`)
		write := func(line string) {
			if _, err := e.farDC.WriteDataChannel([]byte(line+"\n"), false); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		write(`["drained",1]`) // before it was asked for
		result := e.flushing(t.Context())
		write(`["drained",0]`)
		write(`["drained",-1]`)
		write(`["drained"]`)
		checkFlushed(t, result, "without a response", false)
		if n := len(e.nearEvs.wrong); n != 2 {
			t.Errorf("%d lines rejected: %v", n, e.nearEvs.wrong)
		}
		write(`["drained",1]`)
		checkFlushed(t, result, "with its number", true)
	})
}

// Without the capability, no drain is written and none is answered.
func TestDrainIsNegotiated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := connectEnds(t, description{stream: true})
		if _, err := e.farDC.WriteDataChannel([]byte("[\"drain\",1]\n"), false); err != nil {
			t.Fatal(err)
		}
		e.mustSend(t, `{"type":"x"}`)
		result := e.flushing(t.Context())
		if n, want := e.nearDC.BufferedAmount(), uint64(len(`{"type":"x"}`)+1); n != want {
			t.Errorf("%d bytes written, want only the message's %d", n, want)
		}
		e.nearDC.acknowledge(0)
		checkFlushed(t, result, "acknowledged", true)
	})
}
