//go:build !js

// Package hostile is a peer for tests that has a link like any other and then keeps to no rule: it says what
// it likes, line by line, does not pause when it is asked to, and reads only if it wants to.
package hostile

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// A Peer is a party without a sidecar, whose peer links the test holds in its hand.
type Peer struct {
	t    testing.TB
	node *rtc.Node

	mu    sync.Mutex
	links map[string]*rtc.Peer
	lines int64 // that it read
}

// Join makes a peer of the mesh whose signaling server, in development mode, has the URL http://... It leaves at the
// end of the test.
func Join(t testing.TB, url, id string) *Peer {
	t.Helper()
	client := signal.New(signal.Config{Settings: signal.Settings{
		URL: "ws" + strings.TrimPrefix(url, "http") + "/ws", TokenURL: url + "/api/token", APIKey: id,
	}})
	p := &Peer{t: t, links: make(map[string]*rtc.Peer)}
	node, err := rtc.New(rtc.Config{Settings: rtc.Settings{NoLocal: true}, QueueHard: 64 << 20}, client, events{p})
	if err != nil {
		t.Fatal(err)
	}
	p.node = node
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = client.Run(ctx, handler{node}) }) // until cancel
	t.Cleanup(func() {
		cancel()
		_ = node.Close(ctx) // what its victims did not read is lost
		running.Wait()
	})
	return p
}

// Link blocks until there is a link to a peer, and returns it.
func (p *Peer) Link(id string) *rtc.Peer {
	p.t.Helper()
	var l *rtc.Peer
	testutil.Eventually(p.t, "a link to "+id, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		l = p.links[id]
		return l != nil
	})
	return l
}

// Lines returns how many lines the peer has read.
func (p *Peer) Lines() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lines
}

// Say sends a line, whatever it is, as soon as the queue to the other end has room for it, or returns false if the link
// has ended or has no room even after waiting.
func Say(l *rtc.Peer, line string) bool { return l.Send([]byte(line), wire.LaneOrdered) == nil }

// handler passes what signaling says on to the node.
type handler struct{ *rtc.Node }

func (handler) Status(signal.Status) {}

// events notes the links of a Peer, and what it reads.
type events struct{ p *Peer }

func (e events) PeerConnected(l *rtc.Peer) {
	e.p.mu.Lock()
	defer e.p.mu.Unlock()
	e.p.links[l.ID()] = l
}

func (e events) PeerDisconnected(l *rtc.Peer, _ error) {
	e.p.mu.Lock()
	defer e.p.mu.Unlock()
	delete(e.p.links, l.ID())
}

func (e events) PeerLine(*rtc.Peer, *wire.PeerLine) {
	e.p.mu.Lock()
	defer e.p.mu.Unlock()
	e.p.lines++
}

func (events) PeerStream(*rtc.Peer, *rtc.Stream)  {}
func (events) PeerRejected(*rtc.Peer, error)      {}
func (events) PeerPath(*rtc.Peer)                 {}
func (events) PeerCongested(*rtc.Peer, wire.Stop) {}
func (events) ConnectFailed(string, *wire.Error)  {}
func (events) Fault(error)                        {}
