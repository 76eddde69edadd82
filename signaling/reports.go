package signaling

import (
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/pace"
)

// The lines that an outsider can cause. A source is a peer id or an address, and has a share for each level, so that what is
// relayed does not hide who has come.
var (
	linesOfSource = pace.Rate{Burst: 20, Every: 5 * time.Second}
	linesOfAll    = pace.Rate{Burst: 2000, Every: time.Second / 10}
)

// reports is the log of what outsiders cause. Lines over the bounds are left out and counted: the next line says how
// many, as left_out.
type reports struct {
	log     zerolog.Logger
	sources *pace.Sources[sourceLevel]
	all     *pace.Sources[struct{}]
	leftOut atomic.Uint64
}

func newReports(log zerolog.Logger) *reports {
	return &reports{
		log:     log,
		sources: pace.NewSources[sourceLevel](linesOfSource),
		all:     pace.NewSources[struct{}](linesOfAll),
	}
}

type sourceLevel struct {
	source any
	level  zerolog.Level
}

// at begins a line that source has caused, or returns nil, which zerolog takes for a line that is not to be written.
func (r *reports) at(level zerolog.Level, source any) *zerolog.Event {
	e := r.log.WithLevel(level)
	if e == nil {
		return nil
	}
	if !r.sources.Take(sourceLevel{source, level}) || !r.all.Take(struct{}{}) {
		r.leftOut.Add(1)
		return e.Discard()
	}
	if n := r.leftOut.Swap(0); n > 0 {
		e.Uint64("left_out", n)
	}
	return e
}
