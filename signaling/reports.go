package signaling

import (
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// The lines that an outsider can cause: each source, which is a peer id or an address, has 20 at once of each level, so that
// what is relayed does not hide who has come, and one more every 5 s; all together have 2,000, and 10 more every second.
const (
	linesPerSource      = 20
	linesPerSourceEvery = 5 * time.Second
	linesOfAll          = 2000
	linesOfAllEvery     = time.Second / 10
)

// maxField bounds a text from outside in the log, in bytes.
const maxField = 200

// reports is the log of what outsiders cause. Lines over the bounds are left out and counted: the next line says how
// many, as left_out.
type reports struct {
	log     zerolog.Logger
	sources *quota[sourceLevel]
	all     *quota[struct{}]
	leftOut atomic.Uint64
}

func newReports(log zerolog.Logger) *reports {
	return &reports{
		log:     log,
		sources: newQuota[sourceLevel](linesPerSource, linesPerSourceEvery),
		all:     newQuota[struct{}](linesOfAll, linesOfAllEvery),
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
	if !r.sources.spend(sourceLevel{source, level}) || !r.all.spend(struct{}{}) {
		r.leftOut.Add(1)
		return e.Discard()
	}
	if n := r.leftOut.Swap(0); n > 0 {
		e.Uint64("left_out", n)
	}
	return e
}

// cut bounds a text from outside.
func cut(text string) string {
	if len(text) <= maxField {
		return text
	}
	return strings.ToValidUTF8(text[:maxField], "") + "..."
}
