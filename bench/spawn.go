package main

import (
	"context"
	"time"

	"github.com/chatixia-ai/mesh"
)

// spawn measures New with a forked sidecar, until that responds.
type spawn struct {
	name  string
	rooms *rooms
}

func newSpawn(name string) side { return side{[]string{name}, &spawn{name: name}} }

func (s *spawn) setup(ctx context.Context) (err error) {
	if s.rooms, err = openRooms(1); err != nil {
		return err
	}
	_, err = s.round(ctx)
	return err
}

func (s *spawn) round(ctx context.Context) (reading, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	start := time.Now()
	m, err := mesh.New(ctx, mesh.Config{Mode: mesh.SelfExec, SignalingURL: s.rooms.url(0), APIKey: "agent"})
	if err != nil {
		return nil, err
	}
	r := reading{s.name: float64(time.Since(start).Microseconds()) / 1e3}
	return r, m.Close()
}

func (s *spawn) close() {
	if s.rooms != nil {
		s.rooms.close()
	}
}
