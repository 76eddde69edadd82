package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// A meshFleet is agents with in-process sidecars and their signaling server,
// configured as by default but for the network.
type meshFleet struct {
	network mesh.Network
	rooms   *rooms
	agents  []*mesh.Mesh
	count   *counter
	msg     mesh.Message
}

func (f *meshFleet) open(ctx context.Context, n int, linked bool) (err error) {
	payload, err := fill(smallSize, wire.MessageFields{Type: "bench"})
	if err != nil {
		return err
	}
	f.msg = mesh.Message{Type: "bench", Payload: payload}
	f.count = newCounter()
	// An agent that is alone in a room has no link.
	if f.rooms, err = openRooms(n); err != nil {
		return err
	}
	f.agents = make([]*mesh.Mesh, n)
	err = each(n, func(i int) error {
		room := i
		if linked {
			room = 0
		}
		return f.start(ctx, i, room, linked)
	})
	if err != nil || !linked || f.network.NoLocal {
		return err
	}
	for i, m := range f.agents {
		for k := range f.agents {
			if k == i {
				continue
			}
			if err := waitLocal(ctx, m, peerName(k)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *meshFleet) start(ctx context.Context, i, room int, linked bool) error {
	receive := func(context.Context, *mesh.Message) (any, error) {
		f.count.add(1)
		return nil, nil
	}
	m, err := mesh.New(ctx, mesh.Config{
		SignalingURL: f.rooms.url(room), APIKey: peerName(i), WaitSignaling: true, Network: f.network,
		Handlers: map[string]mesh.Handler{f.msg.Type: receive},
	})
	if err != nil {
		return err
	}
	f.agents[i] = m
	for k := range f.agents {
		if linked && k != i {
			if err := m.WaitPeer(ctx, peerName(k)); err != nil {
				return fmt.Errorf("%s waits for %s: %w", peerName(i), peerName(k), err)
			}
		}
	}
	return nil
}

func (f *meshFleet) broadcast(ctx context.Context) error {
	f.count.expect(int64(len(f.agents) - 1))
	if err := f.agents[0].Broadcast(ctx, f.msg); err != nil {
		return err
	}
	return f.count.wait(ctx)
}

func (f *meshFleet) readers() int { return 0 }

func (f *meshFleet) close() {
	_ = each(len(f.agents), func(i int) error {
		if f.agents[i] != nil {
			_ = f.agents[i].Close() // nothing of value is lost
		}
		return nil
	})
	if f.rooms != nil {
		f.rooms.close()
	}
}

// each calls do for 0 to n-1 side by side.
func each(n int, do func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = do(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
