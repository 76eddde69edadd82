package mesh

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/rs/zerolog"
)

// Slog returns a logger for Config.Logger that passes everything on to a handler of
// log/slog, with the same levels, messages and fields. What the handler is not enabled
// for costs next to nothing.
//
//	mesh.Config{Logger: mesh.Slog(slog.Default().Handler())}
func Slog(h slog.Handler) zerolog.Logger {
	level := zerolog.Disabled
	for _, l := range []zerolog.Level{zerolog.ErrorLevel, zerolog.WarnLevel, zerolog.InfoLevel, zerolog.DebugLevel} {
		if h.Enabled(context.Background(), slogLevel(l)) {
			level = l
		}
	}
	return zerolog.New(slogWriter{h}).Level(level)
}

// A slogWriter takes zerolog's lines.
type slogWriter struct{ handler slog.Handler }

// Write implements io.Writer, for lines without a level.
func (w slogWriter) Write(line []byte) (int, error) { return w.WriteLevel(zerolog.InfoLevel, line) }

// WriteLevel implements zerolog.LevelWriter.
func (w slogWriter) WriteLevel(l zerolog.Level, line []byte) (int, error) {
	ctx, level := context.Background(), slogLevel(l)
	if !w.handler.Enabled(ctx, level) {
		return len(line), nil
	}
	r := slog.NewRecord(time.Now(), level, "", 0)
	if err := addFields(&r, line); err != nil {
		return 0, err
	}
	if err := w.handler.Handle(ctx, r); err != nil {
		return 0, err
	}
	return len(line), nil
}

// addFields adds the members of a line, in their order.
func addFields(r *slog.Record, line []byte) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	if _, err := d.Token(); err != nil {
		return fmt.Errorf("mesh: a line of the log is no object: %w", err)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return fmt.Errorf("mesh: line of the log: %w", err)
		}
		var value any
		if err := d.Decode(&value); err != nil {
			return fmt.Errorf("mesh: line of the log: %w", err)
		}
		switch name {
		case zerolog.LevelFieldName, zerolog.TimestampFieldName: // the record has its own
		case zerolog.MessageFieldName:
			r.Message, _ = value.(string)
		default:
			r.AddAttrs(slog.Any(fmt.Sprint(name), plainNumber(value)))
		}
	}
	return nil
}

// plainNumber returns an integer or a float for a number.
func plainNumber(value any) any {
	n, ok := value.(json.Number)
	if !ok {
		return value
	}
	if i, err := n.Int64(); err == nil {
		return i
	}
	f, _ := n.Float64()
	return f
}

func slogLevel(l zerolog.Level) slog.Level {
	switch l {
	case zerolog.TraceLevel:
		return slog.LevelDebug - 4
	case zerolog.DebugLevel:
		return slog.LevelDebug
	case zerolog.WarnLevel:
		return slog.LevelWarn
	case zerolog.ErrorLevel, zerolog.FatalLevel, zerolog.PanicLevel:
		return slog.LevelError
	}
	return slog.LevelInfo
}
