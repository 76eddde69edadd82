//go:build !js

package sidecar

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// newNetwork returns the network of a sidecar's settings.
func newNetwork(set Settings, log zerolog.Logger, events networkEvents) (network, error) {
	if InMemory(set.Signaling.URL) {
		return newInRoom(set, log, events)
	}
	return newWebRTC(set, log, events)
}

// InMemory reports whether a URL is not that of a signaling server but of a room in memory.
func InMemory(url string) bool { return strings.HasPrefix(url, rtc.RoomScheme) }

// turnLifetime is how long ephemeral TURN credentials are valid; they are renewed halfway.
const turnLifetime = 24 * time.Hour

// webRTC is the network over WebRTC, whose peers meet by a signaling server.
type webRTC struct {
	set    Settings
	log    zerolog.Logger
	node   *rtc.Node
	client *signal.Client
	events networkEvents
}

func newWebRTC(set Settings, log zerolog.Logger, events networkEvents) (*webRTC, error) {
	id, err := set.openIdentity(log)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	cfg := set.signaling(log)
	cfg.CheckID = func(peer string) error {
		if err := id.Claim(peer); err != nil {
			return fmt.Errorf("%w: %w", errNotOurID, err)
		}
		return nil
	}
	cfg.OwnID = id.OwnID
	w := &webRTC{set: set, log: log, events: events, client: signal.New(cfg)}
	node, err := rtc.New(rtc.Config{
		Settings: set.Network, Socket: set.Socket, Identity: id, Limits: set.Limits, ICEServers: w.iceServers(), Log: log,
		RootCAs: cfg.RootCAs, QueueHigh: outboundHigh, QueueHard: outboundHigh + crossing(set.Limits),
	}, w.client, peerEvents{events})
	if err != nil {
		return nil, err
	}
	w.node = node
	return w, nil
}

func (w *webRTC) join(ctx context.Context) error {
	var renewing sync.WaitGroup
	defer renewing.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if w.set.TURNSecret != "" {
		renewing.Go(func() { w.renewTURN(ctx) })
	}
	return w.client.Run(ctx, w)
}

func (w *webRTC) setCard(card []byte)             { w.node.SetCard(card) }
func (w *webRTC) connect(peer string)             { w.node.Connect(peer) }
func (w *webRTC) flush(ctx context.Context) error { return w.node.Flush(ctx) }
func (w *webRTC) unsent(ctx context.Context) map[string][wire.Lanes]int {
	return w.node.Unsent(ctx)
}

func (w *webRTC) flushStreams(ctx context.Context) { w.node.FlushStreams(ctx) }

func (w *webRTC) openStream(ctx context.Context, p peerLink) (Stream, error) {
	return openStream(ctx, p)
}

// openStream opens a stream of a link of rtc.
func openStream(ctx context.Context, p peerLink) (Stream, error) {
	s, err := p.(*rtc.Peer).OpenStream(ctx)
	switch {
	case err == nil:
		return s, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	return nil, StreamError(err)
}

func (w *webRTC) close(ctx context.Context) error { return w.node.Close(ctx) }

// iceServers returns the configured servers, with ephemeral TURN credentials where a secret was given.
func (w *webRTC) iceServers() []signal.ICEServer {
	servers := slices.Concat(w.set.ICEServers, w.set.ExtraICEServers)
	if w.set.TURNSecret == "" {
		return servers
	}
	user, password := signal.TURNCredentials(w.set.TURNSecret, time.Now().Add(turnLifetime))
	for i := range w.set.ICEServers {
		if servers[i].Username == "" {
			servers[i].Username, servers[i].Credential = user, password
		}
	}
	return servers
}

func (w *webRTC) renewTURN(ctx context.Context) {
	t := time.NewTicker(turnLifetime / 2)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			w.node.ICEServers(w.iceServers())
		case <-ctx.Done():
			return
		}
	}
}

// What the signaling client reports (signal.Handler) goes to the node.

func (w *webRTC) Registered(self string, l signal.PeersPayload) { w.node.Registered(self, l) }
func (w *webRTC) Receive(m signal.Message)                      { w.node.Receive(m) }
func (w *webRTC) Disconnected()                                 { w.node.Disconnected() }
func (w *webRTC) Status(st signal.Status)                       { w.events.signalingChanged(st) }

func (w *webRTC) ICEServers(servers []signal.ICEServer) {
	w.node.ICEServers(slices.Concat(servers, w.set.ExtraICEServers))
}

// peerEvents passes on what the node reports (rtc.Events).
type peerEvents struct{ to networkEvents }

func (e peerEvents) PeerConnected(p *rtc.Peer)                  { e.to.peerConnected(p) }
func (e peerEvents) PeerDisconnected(p *rtc.Peer, reason error) { e.to.peerDisconnected(p, reason) }
func (e peerEvents) PeerLine(p *rtc.Peer, l *wire.PeerLine)     { e.to.peerLine(p, l) }
func (e peerEvents) PeerStream(p *rtc.Peer, s *rtc.Stream)      { e.to.peerStream(p, s) }
func (e peerEvents) PeerRejected(p *rtc.Peer, err error)        { e.to.peerRejected(p, err) }
func (e peerEvents) PeerCongested(p *rtc.Peer, stop wire.Stop)  { e.to.peerCongested(p, stop) }
func (e peerEvents) PeerPath(p *rtc.Peer)                       { e.to.peerPath(p) }
func (e peerEvents) ConnectFailed(peer string, err *wire.Error) { e.to.connectFailed(peer, err) }
func (e peerEvents) Fault(err error)                            { e.to.fault(err) }
