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
	return &pionLogger{log: p.log.With().Str("pion", scope).Logger()}
}

type pionLogger struct {
	log zerolog.Logger
}

func (l *pionLogger) Trace(msg string)                  { l.log.Trace().Msg(msg) }
func (l *pionLogger) Tracef(format string, args ...any) { l.log.Trace().Msgf(format, args...) }
func (l *pionLogger) Debug(msg string)                  { l.log.Trace().Msg(msg) }
func (l *pionLogger) Debugf(format string, args ...any) { l.log.Trace().Msgf(format, args...) }
func (l *pionLogger) Info(msg string)                   { l.log.Debug().Msg(msg) }
func (l *pionLogger) Infof(format string, args ...any)  { l.log.Debug().Msgf(format, args...) }
func (l *pionLogger) Warn(msg string)                   { l.log.Debug().Msg(msg) }
func (l *pionLogger) Warnf(format string, args ...any)  { l.log.Debug().Msgf(format, args...) }
func (l *pionLogger) Error(msg string)                  { l.log.Warn().Msg(msg) }
func (l *pionLogger) Errorf(format string, args ...any) { l.log.Warn().Msgf(format, args...) }
