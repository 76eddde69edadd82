package main

import (
	"context"
	"errors"
	"time"

	"github.com/chatixia-ai/mesh"
)

// meshJoin measures from the second agent's New until both know the other. Both
// agents are new in each round.
type meshJoin struct {
	name  string
	rooms *rooms
}

func newMeshJoin(name string) side { return side{[]string{name}, &meshJoin{name: name}} }

func (j *meshJoin) setup(ctx context.Context) (err error) {
	if j.rooms, err = openRooms(1); err != nil {
		return err
	}
	_, err = j.round(ctx)
	return err
}

func (j *meshJoin) round(ctx context.Context) (reading, error) {
	return joinTwo(ctx, j.name, mesh.Config{SignalingURL: j.rooms.url(0), Network: webRTC}, [2]string{"first", "second"})
}

func (j *meshJoin) close() {
	if j.rooms != nil {
		j.rooms.close()
	}
}

// joinTwo starts an agent with each API key, and returns how long it takes from the second one's New until both know the
// other.
func joinTwo(ctx context.Context, name string, cfg mesh.Config, keys [2]string) (reading, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, errors.New("the mesh did not connect"))
	defer cancel()
	connected := make(chan struct{}, 2)
	cfg.WaitSignaling, cfg.OnPeer = true, func(e mesh.PeerEvent) {
		if e.Connected {
			connected <- struct{}{}
		}
	}
	cfg.APIKey = keys[0]
	first, err := mesh.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer first.Close()
	start := time.Now()
	cfg.APIKey, cfg.WaitSignaling = keys[1], false // what counts is the peer
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
	return timed(name, start)
}

// timed is the reading of what has begun at start, in milliseconds.
func timed(name string, start time.Time) (reading, error) {
	elapsed := time.Since(start)
	r := reading{name: float64(elapsed.Microseconds()) / 1e3}
	if elapsed > joinStall {
		return r, errStalled
	}
	return r, nil
}

// pionJoin measures from two new PeerConnections until both ends are open.
// Sockets are made for each connection, as the mesh does by default.
type pionJoin struct {
	name string
	ends [2]*pionEnd
}

func newPionJoin(name string) side { return side{[]string{name}, &pionJoin{name: name}} }

func (j *pionJoin) setup(ctx context.Context) (err error) {
	for i := range j.ends {
		if j.ends[i], err = newPionEnd(pionKind{}); err != nil {
			return err
		}
	}
	_, err = j.round(ctx)
	return err
}

func (j *pionJoin) round(ctx context.Context) (reading, error) {
	start := time.Now()
	link, err := connectPion(ctx, j.ends[0], j.ends[1])
	if err != nil {
		return nil, err
	}
	defer link.close()
	return timed(j.name, start)
}

func (j *pionJoin) close() {}
