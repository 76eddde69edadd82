package rtc

import (
	"github.com/pion/logging"
	"github.com/rs/zerolog"
)

// pionLoggers hands pion loggers that write to zerolog, because pion's own default writes to stderr.
//
// pion warns about what is routine here (a candidate that cannot be reached, a packet for a channel that
// was just closed), so all but its errors are for whoever debugs, and its errors are warnings: what they
// mean for a peer is reported by this package.
type pionLoggers struct {
	log zerolog.Logger
}

// NewLogger implements logging.LoggerFactory.
func (p pionLoggers) NewLogger(scope string) logging.LeveledLogger {
	return &pionLogger{log: p.log, scope: scope}
}

// pionLogger adds its scope to each record rather than to the logger: each connection has a dozen of them,
// and a logger with a field takes half a kilobyte.
type pionLogger struct {
	log   zerolog.Logger
	scope string
}

func (l *pionLogger) at(e *zerolog.Event) *zerolog.Event { return e.Str("pion", l.scope) }

func (l *pionLogger) Trace(msg string)                  { l.at(l.log.Trace()).Msg(msg) }
func (l *pionLogger) Tracef(format string, args ...any) { l.at(l.log.Trace()).Msgf(format, args...) }
func (l *pionLogger) Debug(msg string)                  { l.at(l.log.Trace()).Msg(msg) }
func (l *pionLogger) Debugf(format string, args ...any) { l.at(l.log.Trace()).Msgf(format, args...) }
func (l *pionLogger) Info(msg string)                   { l.at(l.log.Debug()).Msg(msg) }
func (l *pionLogger) Infof(format string, args ...any)  { l.at(l.log.Debug()).Msgf(format, args...) }
func (l *pionLogger) Warn(msg string)                   { l.at(l.log.Debug()).Msg(msg) }
func (l *pionLogger) Warnf(format string, args ...any)  { l.at(l.log.Debug()).Msgf(format, args...) }
func (l *pionLogger) Error(msg string)                  { l.at(l.log.Warn()).Msg(msg) }
func (l *pionLogger) Errorf(format string, args ...any) { l.at(l.log.Warn()).Msgf(format, args...) }
