package main

import (
	"context"
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
	return joinTwo(ctx, j.name, mesh.Config{SignalingURL: "ws://" + way.Addr() + "/ws", Network: overPathOnly}, wanEnds)
}
