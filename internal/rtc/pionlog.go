//go:build !js

package rtc

import (
	"fmt"
	"time"

	"github.com/pion/logging"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/logs"
)

// pionLoggers hands pion loggers that write to zerolog, because pion's own default writes to stderr.
//
// pion warns about what is routine here (a candidate that cannot be reached, a packet for a channel that
// was just closed), so all but its errors are for debugging, and dropped unless asked for. Its errors are
// warnings: what they mean for a peer is reported by this package.
type pionLoggers struct {
	log      zerolog.Logger
	all      bool      // not only errors
	failures *failures // nil if no session is concerned
}

// sampled returns a logger for what pion says, in which peers have a part.
func sampled(log zerolog.Logger) zerolog.Logger {
	return log.Sample(zerolog.LevelSampler{
		DebugSampler: &zerolog.BurstSampler{Burst: 100, Period: time.Second},
		WarnSampler:  &zerolog.BurstSampler{Burst: 20, Period: time.Minute},
	})
}

// NewLogger implements logging.LoggerFactory.
func (p *pionLoggers) NewLogger(scope string) logging.LeveledLogger {
	return &pionLogger{p, scope}
}

// pionLogger adds its scope to each record rather than to the logger: each connection has a dozen of them,
// and a logger with a field takes half a kilobyte.
type pionLogger struct {
	*pionLoggers
	scope string
}

// write writes a record at a level, which costs nothing if that is not asked for.
func (l *pionLogger) write(level zerolog.Level, format string, args []any) {
	if !l.all && level < zerolog.WarnLevel {
		return
	}
	if e := l.log.WithLevel(level); l.log.GetLevel() <= level && e.Enabled() {
		e.Str("pion", l.scope).Msg(l.shown(redact(text(format, args))))
	}
}

// shown returns what is logged of a text, in which a peer may have a part: all of it for who has asked for it.
func (l *pionLogger) shown(text string) string {
	if l.all {
		return text
	}
	return logs.Cut(text)
}

func text(format string, args []any) string {
	if args == nil {
		return format
	}
	return fmt.Sprintf(format, args...)
}

// warn is for pion's warnings, some of which are the only word about a failure.
func (l *pionLogger) warn(format string, args []any) {
	if l.failures != nil && (l.scope == "ice" || l.scope == "pc") {
		l.failures.noteLog(l.scope, redact(text(format, args)))
	}
	l.write(zerolog.DebugLevel, format, args)
}

func (l *pionLogger) Trace(msg string)                  { l.write(zerolog.TraceLevel, msg, nil) }
func (l *pionLogger) Tracef(format string, args ...any) { l.write(zerolog.TraceLevel, format, args) }
func (l *pionLogger) Debug(msg string)                  { l.write(zerolog.TraceLevel, msg, nil) }
func (l *pionLogger) Debugf(format string, args ...any) { l.write(zerolog.TraceLevel, format, args) }
func (l *pionLogger) Info(msg string)                   { l.write(zerolog.DebugLevel, msg, nil) }
func (l *pionLogger) Infof(format string, args ...any)  { l.write(zerolog.DebugLevel, format, args) }
func (l *pionLogger) Warn(msg string)                   { l.warn(msg, nil) }
func (l *pionLogger) Warnf(format string, args ...any)  { l.warn(format, args) }
func (l *pionLogger) Error(msg string)                  { l.write(zerolog.WarnLevel, msg, nil) }
func (l *pionLogger) Errorf(format string, args ...any) { l.write(zerolog.WarnLevel, format, args) }
