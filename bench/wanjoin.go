package main

import (
	"context"
	"errors"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/testutil/netpath"
)

// wanJoinDelay is one way of a round trip of 50 ms, between the agents and between each of them and signaling.
const wanJoinDelay = 25 * time.Millisecond

// A wanJoin measures from the second agent's New until both know of the other, over paths with delay. Agents and paths are
// new in each round.
type wanJoin struct {
	name  string
	seeds uint64
}

func newWANJoin(name string) side { return side{[]string{name}, &wanJoin{name: name}} }

func (j *wanJoin) setup(context.Context) error { return nil }
func (j *wanJoin) close()                      {}

func (j *wanJoin) round(ctx context.Context) (reading, error) {
	j.seeds++
	path, err := netpath.New(netpath.Conditions{Delay: wanJoinDelay}, j.seeds)
	if err != nil {
		return nil, err
	}
	defer func() { _ = path.Close() }()
	room, err := openWANRoom(path)
	if err != nil {
		return nil, err
	}
	defer room.close()
	way, err := netpath.NewTCP(room.Addr(), wanJoinDelay)
	if err != nil {
		return nil, err
	}
	defer func() { _ = way.Close() }()
	return j.join(ctx, "ws://"+way.Addr()+"/ws")
}

func (j *wanJoin) join(ctx context.Context, url string) (reading, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, errors.New("the mesh did not connect"))
	defer cancel()
	connected := make(chan struct{}, 2)
	cfg := mesh.Config{SignalingURL: url, Network: overPathOnly, WaitSignaling: true, OnPeer: func(e mesh.PeerEvent) {
		if e.Connected {
			connected <- struct{}{}
		}
	}}
	cfg.APIKey = wanEnds[0]
	first, err := mesh.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer first.Close()
	start := time.Now()
	cfg.APIKey = wanEnds[1]
	cfg.WaitSignaling = false // what counts is the peer
	second, err := mesh.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer second.Close()
	for range 2 {
		select {
		case <-connected:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return timed(j.name, start)
}
