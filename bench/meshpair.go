package main

import (
	"context"
	"errors"

	"github.com/chatixia-ai/mesh"
)

// A meshPair is two agents that are connected to each other.
type meshPair struct {
	rooms     *rooms
	near, far *mesh.Mesh
}

const nearID, farID = "near", "far"

// What an echo is asked for by.
const (
	echoType = "bench_request"
	echoID   = "123456789012" // as long as the ids that Request draws
)

// webRTC keeps links to WebRTC, which is what is compared, though their ends are on one host.
var webRTC = mesh.Network{NoLocal: true}

// openMeshPair starts both agents in the mode; handlers are the far one's. Each
// sidecar has one UDP socket, like the ends of a pionPair.
func openMeshPair(ctx context.Context, mode mesh.Mode, network mesh.Network, handlers map[string]mesh.Handler) (*meshPair, error) {
	rooms, err := openRooms(1)
	if err != nil {
		return nil, err
	}
	p, err := openMeshPairAt(ctx, mesh.Config{Mode: mode, SignalingURL: rooms.url(0), Network: network}, handlers)
	if err != nil {
		rooms.close()
		return nil, err
	}
	p.rooms = rooms
	return p, nil
}

// openMeshPairAt is openMeshPair for agents that meet at the signaling server of cfg.
func openMeshPairAt(ctx context.Context, cfg mesh.Config, handlers map[string]mesh.Handler) (_ *meshPair, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, errors.New("the mesh did not connect"))
	defer cancel()
	p := &meshPair{}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	cfg.Network.UDPPort, cfg.WaitSignaling = mesh.AnyUDPPort, true
	cfg.APIKey = nearID
	if p.near, err = mesh.New(ctx, cfg); err != nil {
		return nil, err
	}
	cfg.APIKey, cfg.Handlers = farID, handlers
	if p.far, err = mesh.New(ctx, cfg); err != nil {
		return nil, err
	}
	if err = p.near.WaitPeer(ctx, farID); err != nil {
		return nil, err
	}
	return p, p.far.WaitPeer(ctx, nearID)
}

func (p *meshPair) close() {
	for _, m := range []*mesh.Mesh{p.near, p.far} {
		if m != nil {
			_ = m.Close() // nothing of value is lost
		}
	}
	if p.rooms != nil {
		p.rooms.close()
	}
}
