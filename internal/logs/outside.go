package logs

import (
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/pace"
)

// What outsiders can cause. A source, such as a peer or an address, has a share for each level, so that none
// hides what another does, nor its own small talk what it does wrong.
var recordsOfSource = pace.Rate{Burst: 40, Every: 5 * time.Second}

// AgentBurst is the burst for the log of one agent.
const AgentBurst = 400

// recordsOfAll is how long it takes until all sources together may cause one more.
const recordsOfAll = time.Second / 10

// Outside is the log of what outsiders cause. Records over the bounds are left out and counted: the next one says how many,
// as left_out. Its methods may be called concurrently.
type Outside struct {
	log     zerolog.Logger
	sources *pace.Sources[sourceLevel]
	all     *pace.Sources[struct{}]
	leftOut atomic.Uint64
}

type sourceLevel struct {
	source any
	level  zerolog.Level
}

// NewOutside returns the log of what outsiders cause, whose records are written to log: those of one source 40 at once and
// one every 5 s, those of all as many as burst and ten a second.
func NewOutside(log zerolog.Logger, burst int) *Outside {
	return &Outside{
		log: log, sources: pace.NewSources[sourceLevel](recordsOfSource),
		all: pace.NewSources[struct{}](pace.Rate{Burst: burst, Every: recordsOfAll}),
	}
}

// At begins a record that source has caused, or returns nil, which zerolog takes for one that is not to be written.
func (o *Outside) At(level zerolog.Level, source any) *zerolog.Event {
	e := o.log.WithLevel(level)
	if e == nil {
		return nil
	}
	if !o.sources.Take(sourceLevel{source, level}) || !o.all.Take(struct{}{}) {
		o.leftOut.Add(1)
		return e.Discard()
	}
	if n := o.leftOut.Swap(0); n > 0 {
		e.Uint64("left_out", n)
	}
	return e
}

// Debug is At for that level.
func (o *Outside) Debug(source string) *zerolog.Event { return o.At(zerolog.DebugLevel, Cut(source)) }

// Info is At for that level.
func (o *Outside) Info(source string) *zerolog.Event { return o.At(zerolog.InfoLevel, Cut(source)) }

// Warn is At for that level.
func (o *Outside) Warn(source string) *zerolog.Event { return o.At(zerolog.WarnLevel, Cut(source)) }

// Error is At for that level.
func (o *Outside) Error(source string) *zerolog.Event { return o.At(zerolog.ErrorLevel, Cut(source)) }
