//go:build !js

package sidecar

import (
	"context"
	"fmt"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// inRoom is the network of agents that are linked in memory, for tests. The API key is the peer id, as in development mode.
type inRoom struct {
	set    Settings
	member *rtc.Member
	events networkEvents
}

func newInRoom(set Settings, log zerolog.Logger, events networkEvents) (*inRoom, error) {
	room := rtc.RoomAt(set.Signaling.URL)
	if room == nil {
		return nil, fmt.Errorf("there is no room %s", set.Signaling.URL)
	}
	id, err := set.openIdentity(log)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return &inRoom{set: set, events: events, member: room.NewMember(rtc.Config{
		Settings: set.Network, Identity: id, Limits: set.Limits, Log: log,
		QueueHigh: outboundHigh, QueueHard: outboundHigh + crossing(set.Limits),
	}, peerEvents{events})}, nil
}

func (n *inRoom) join(ctx context.Context) error {
	id := n.set.Signaling.APIKey
	if n.set.Signaling.IfFree && n.member.Here(id) {
		n.events.signalingChanged(signal.Status{State: signal.Replaced, Err: signal.ErrInUse, Permanent: true})
		return signal.ErrInUse
	}
	n.member.Join(id, func() { n.events.signalingChanged(signal.Status{State: signal.Connected, PeerID: id}) })
	select {
	case <-ctx.Done():
		return nil
	case <-n.member.Left():
	}
	if ctx.Err() != nil {
		return nil
	}
	n.events.signalingChanged(signal.Status{State: signal.Replaced, Err: signal.ErrReplaced, Permanent: true})
	return signal.ErrReplaced
}

func (n *inRoom) connect(peer string) {
	if !n.member.Here(peer) {
		n.events.connectFailed(peer, &wire.Error{Code: wire.CodePeerUnavailable, Text: "no such peer"})
	}
}

func (n *inRoom) setCard(card []byte)                                   { n.member.SetCard(card) }
func (n *inRoom) flush(ctx context.Context) error                       { return n.member.Flush(ctx) }
func (n *inRoom) unsent(ctx context.Context) map[string][wire.Lanes]int { return n.member.Unsent(ctx) }
func (n *inRoom) flushStreams(ctx context.Context)                      { n.member.FlushStreams(ctx) }
func (n *inRoom) close(ctx context.Context) error                       { return n.member.Close(ctx) }

func (n *inRoom) openStream(ctx context.Context, p peerLink) (Stream, error) {
	return openStream(ctx, p)
}
