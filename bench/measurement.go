package main

import (
	"context"
	"errors"
)

// A reading is the result of one round: numbers by name, with the unit at the
// end of the name.
type reading map[string]float64

// A measurement is one side of a comparison. Its rounds take turns with those
// of the other sides, so that all see the same machine.
type measurement interface {
	setup(ctx context.Context) error
	round(ctx context.Context) (reading, error)
	close()
}

// errStalled marks a round in which nothing moved for so long that a
// retransmission timer must have been the reason. It comes with a reading.
var errStalled = errors.New("stalled")

// A side is a measurement and the numbers that it gives.
type side struct {
	gives []string
	measurement
}

// A group is the sides that are measured in turn.
type group struct {
	name   string
	rounds int
	sides  []side
}
