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

const farID = "far"

// openMeshPair starts both agents in the mode; handlers are the far one's. Each
// sidecar has one UDP socket, like the ends of a pionPair.
func openMeshPair(ctx context.Context, mode mesh.Mode, handlers map[string]mesh.Handler) (_ *meshPair, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, errors.New("the mesh did not connect"))
	defer cancel()
	p := &meshPair{}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.rooms, err = openRooms(1); err != nil {
		return nil, err
	}
	cfg := mesh.Config{Mode: mode, SignalingURL: p.rooms.url(0), Network: mesh.Network{UDPPort: mesh.AnyUDPPort}, WaitSignaling: true}
	cfg.APIKey = "near"
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
	return p, p.far.WaitPeer(ctx, "near")
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
