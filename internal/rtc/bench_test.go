//go:build !js

package rtc_test

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// counter is an Events that does as little as possible.
type counter struct {
	peer  chan *rtc.Peer
	lines atomic.Int64
	echo  bool
	got   chan struct{} // a line came
	room  chan struct{} // the congestion is over
}

func newCounter(echo bool) *counter {
	return &counter{peer: make(chan *rtc.Peer, 1), echo: echo, got: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

func (c *counter) PeerConnected(p *rtc.Peer)         { c.peer <- p }
func (c *counter) PeerDisconnected(*rtc.Peer, error) {}
func (c *counter) PeerRejected(*rtc.Peer, error)     {}
func (c *counter) PeerStream(*rtc.Peer, *rtc.Stream) {}
func (c *counter) ConnectFailed(string, *wire.Error) {}
func (c *counter) Fault(error)                       {}
func (c *counter) PeerPath(*rtc.Peer)                {}

func (c *counter) PeerCongested(_ *rtc.Peer, stop wire.Stop) {
	if stop == wire.StopNothing {
		wake(c.room)
	}
}
func (c *counter) PeerLine(p *rtc.Peer, l *wire.PeerLine) {
	c.lines.Add(1)
	if c.echo {
		_ = p.Send(l.Message.Raw, wire.LaneOrdered)
	}
	wake(c.got)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

type relay struct{ to **rtc.Node }

func (r relay) Probe(alive func()) { alive() }

func (r relay) Send(m signal.Message) error {
	(*r.to).Receive(m)
	return nil
}

func benchPair(b *testing.B, echo bool) (p *rtc.Peer, near, far *counter) {
	b.Helper()
	cfg := rtc.Config{Settings: rtc.Settings{UDPPort: rtc.AnyUDPPort}, Log: zerolog.New(os.Stderr).Level(zerolog.Disabled)}
	cfg.OnlyLoopback()
	near, far = newCounter(false), newCounter(echo)
	var x, y *rtc.Node
	x, err := rtc.New(cfg, relay{&y}, near)
	if err == nil {
		y, err = rtc.New(cfg, relay{&x}, far)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, _ = x.Close(ctx), y.Close(ctx)
	})
	y.Registered("y", signal.PeersPayload{})
	x.Registered("x", signal.PeersPayload{Peers: []string{"y"}})
	<-far.peer
	return <-near.peer, near, far
}

// BenchmarkSend sends messages one way, as fast as the queue takes them.
func BenchmarkSend(b *testing.B) {
	for _, size := range []int{64, 256, 4 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			p, near, far := benchPair(b, false)
			msg := []byte(message(0, size))
			b.SetBytes(int64(size))
			b.ReportAllocs()
			n := int64(0)
			for b.Loop() {
				for p.Send(msg, wire.LaneOrdered) != nil {
					<-near.room
				}
				n++
			}
			for far.lines.Load() < n {
				<-far.got
			}
		})
	}
}

// BenchmarkEcho waits for each message to come back.
func BenchmarkEcho(b *testing.B) {
	for _, size := range []int{256, 16 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			p, near, _ := benchPair(b, true)
			msg := []byte(message(0, size))
			for b.Loop() {
				if err := p.Send(msg, wire.LaneOrdered); err != nil {
					b.Fatal(err)
				}
				<-near.got
			}
		})
	}
}
