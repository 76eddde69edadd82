// Package logs keeps what others can cause from filling the log: how often they are in it, and how long a field is.
package logs

import (
	"time"
	"unicode/utf8"

	"github.com/rs/zerolog"
)

const (
	// burst records are kept in each period.
	burst  = 100
	period = 10 * time.Second
	// MaxField is the length in bytes at which Cut cuts.
	MaxField = 256
)

// Sampled returns a logger for records that others can cause without end: it keeps a hundred in ten seconds. Such records
// have a count, so that those that remain tell of the others.
func Sampled(log zerolog.Logger) zerolog.Logger {
	return log.Sample(&zerolog.BurstSampler{Burst: burst, Period: period})
}

// Cut returns a text whose length others decide as it may be logged or reported: its first MaxField bytes, with "..."
// behind them if there are more.
func Cut[T string | []byte](text T) string {
	if len(text) <= MaxField {
		return string(text)
	}
	n := MaxField
	for n > MaxField-utf8.UTFMax && !utf8.RuneStart(text[n]) {
		n--
	}
	return string(text[:n]) + "..."
}

// Error returns the text of an error as Cut does, "" for nil.
func Error(err error) string {
	if err == nil {
		return ""
	}
	return Cut(err.Error())
}
