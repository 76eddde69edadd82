package spawn

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"

	"github.com/rs/zerolog"
)

const (
	// stderrKept is how many bytes of the end of a process's stderr are kept for error messages.
	stderrKept = 8 << 10
	// stderrLine is the length in bytes at which a longer line is cut.
	stderrLine = 8 << 10
	// stderrRate is how many lines a second are logged; those of our own sidecar are few. What it says when it crashes is
	// kept, however long.
	stderrRate = 200
)

// A stderrTail keeps the end of what a process writes to its stderr and passes
// its lines on to a logger, but no more than stderrRate a second.
type stderrTail struct {
	mu   sync.Mutex
	log  zerolog.Logger
	kept []byte // the last stderrKept bytes, and up to as much again
	line []byte // the part of a line that has come so far
}

// Write never fails: a failure would close the pipe, and the process would notice.
func (t *stderrTail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, b...)
	if over := len(t.kept) - stderrKept; over > stderrKept {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	for rest := b; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte{'\n'})
		if n := stderrLine - len(t.line); len(line) > n {
			line, after, ended = rest[:n], rest[n:], true
		}
		t.line = append(t.line, line...)
		rest = after
		if ended {
			t.forwardLocked()
		}
	}
	return len(b), nil
}

// flush logs a last line that has no newline.
func (t *stderrTail) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forwardLocked()
}

// forwardLocked logs one line: a record of zerolog, which is what a sidecar writes,
// as the same record, anything else as text.
func (t *stderrTail) forwardLocked() {
	line := bytes.TrimSpace(t.line)
	t.line = t.line[:0]
	if len(line) == 0 {
		return
	}
	var record map[string]any
	if line[0] != '{' || json.Unmarshal(line, &record) != nil {
		t.log.Info().Msg(string(line))
		return
	}
	text, _ := record[zerolog.LevelFieldName].(string)
	level, err := zerolog.ParseLevel(text)
	if err != nil || text == "" {
		level = zerolog.InfoLevel
	}
	msg, _ := record[zerolog.MessageFieldName].(string)
	for _, k := range []string{zerolog.LevelFieldName, zerolog.MessageFieldName, zerolog.TimestampFieldName, "pid"} {
		delete(record, k) // the logger has its own
	}
	t.log.WithLevel(level).Fields(record).Msg(msg)
}

// String returns the last lines.
func (t *stderrTail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	kept := t.kept
	if over := len(kept) - stderrKept; over > 0 {
		kept = kept[over:]
		if i := bytes.IndexByte(kept, '\n'); i >= 0 {
			kept = kept[i+1:] // not half a line
		}
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(kept), "\uFFFD"))
}
