//go:build linux || darwin

package interop

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// patience bounds every wait for a party. It is generous because the machine may be busy.
const patience = time.Minute

// A kind is one sort of program on the mesh.
type kind struct {
	name string
	// agent and sidecar report whether that side knows the extensions.
	agent, sidecar bool
	streams        bool                            // whether it has them
	needs          func() (path string, err error) // finds the program it needs; may be nil
	start          func(t *testing.T, st *stage, id string) console
}

// full skips what takes long or needs a Chromium, unless the full suite runs.
func full(t *testing.T) {
	t.Helper()
	testutil.SkipUnlessFull(t, "the table of programs but for its diagonal, Chromium, and the tests of calls, cancelling, pauses, returns and restarts")
}

// check skips a test whose program this machine lacks.
func (k *kind) check(t *testing.T) {
	t.Helper()
	if k.needs == nil {
		return
	}
	_, err := k.needs()
	switch {
	case err == nil:
	case testutil.Full():
		t.Fatalf("%s: %v", k.name, err)
	default:
		t.Skipf("%s: %v", k.name, err)
	}
}

func program(name string) func() (string, error) {
	return func() (string, error) { return exec.LookPath(name) }
}

// A console takes the commands that the examples' README files describe.
type console interface {
	// say gives it one command.
	say(line string) error
	// said returns what it printed.
	said() *transcript
	// quit ends it properly, and returns when nothing of it is left.
	quit() error
	// log returns what its sidecar logged, or "" if that cannot be seen.
	log() string
}

// A party is a program that takes part in a test.
type party struct {
	t *testing.T
	*kind
	console
	id    string
	ended bool
}

// enter starts a party and blocks until it has registered with the signaling server.
func (st *stage) enter(t *testing.T, k *kind, id string) *party {
	t.Helper()
	before := st.registrations(id)
	p := st.begin(t, k, id)
	st.awaitRegistration(t, id, before+1)
	return p
}

// begin starts a party.
func (st *stage) begin(t *testing.T, k *kind, id string) *party {
	t.Helper()
	k.check(t)
	p := &party{t: t, kind: k, id: id, console: k.start(t, st, id)}
	t.Cleanup(func() {
		p.leave()
		if t.Failed() {
			t.Logf("%s (%s) said:\n  %s\nits log:\n%s", id, k.name, strings.Join(p.said().all(), "\n  "), p.log())
		}
	})
	return p
}

// leave ends it and checks that it found nothing wrong.
func (p *party) leave() {
	p.t.Helper()
	if p.ended {
		return
	}
	p.ended = true
	// An original sidecar that left a moment before may not have acknowledged the last message.
	if err := p.quit(); err != nil && !errors.Is(err, mesh.ErrUnsent) {
		p.t.Errorf("%s (%s) did not end as it should: %v", p.id, p.name, err)
	}
	p.checkLog()
}

// checkLog looks for violations: what a base-only party must never see.
func (p *party) checkLog() {
	p.t.Helper()
	if i := strings.Index(p.log(), "VIOLATION"); i >= 0 {
		line, _, _ := strings.Cut(p.log()[i:], "\n")
		p.t.Errorf("%s (%s): %s", p.id, p.name, line)
	}
}

func (p *party) do(format string, args ...any) {
	p.t.Helper()
	if err := p.say(fmt.Sprintf(format, args...)); err != nil {
		p.t.Fatalf("%s (%s) took no command: %v", p.id, p.name, err)
	}
}

// await blocks until it has printed a line for the nth time, counted from 1.
func (p *party) await(n int, line string) {
	p.t.Helper()
	p.find(n, line, func(l string) bool { return l == line })
}

// heard blocks until a message of a type has come from a peer, and returns it.
func (p *party) heard(from, typ string) message {
	p.t.Helper()
	return p.message(from+": ", func(m message) bool { return m.Type == typ })
}

// answered blocks until the response to a request has come, and returns it.
func (p *party) answered(by, requestID string) message {
	p.t.Helper()
	return p.message(by+" answers: ", func(m message) bool { return m.RequestID == requestID })
}

func (p *party) message(prefix string, match func(message) bool) message {
	p.t.Helper()
	var m message
	p.find(1, "a message: "+prefix, func(l string) bool {
		var ok bool
		m, ok = parse(l, prefix)
		return ok && match(m)
	})
	return m
}

// find blocks until it has printed n lines that match, and returns the last of them.
func (p *party) find(n int, what string, match func(string) bool) string {
	p.t.Helper()
	line, ok := p.said().find(n, match)
	if !ok {
		p.t.Fatalf("%s (%s) did not say within %s: %s", p.id, p.name, patience, what)
	}
	return line
}

// logs blocks until its sidecar has logged a text.
func (p *party) logs(text string) {
	p.t.Helper()
	p.until("its log has: "+text, func() bool { return strings.Contains(p.log(), text) })
}

// until blocks until a condition holds that no line announces.
func (p *party) until(what string, ok func() bool) {
	p.t.Helper()
	testutil.Eventually(p.t, fmt.Sprintf("%s (%s): %s", p.id, p.name, what), ok)
}

// times returns how often it has printed a line so far.
func (p *party) times(line string) int {
	n := 0
	for _, l := range p.said().all() {
		if l == line {
			n++
		}
	}
	return n
}

// A message is one as the parties print it.
type message struct {
	Type      string
	RequestID string `json:"request_id"`
	Payload   json.RawMessage
}

func parse(line, prefix string) (message, bool) {
	rest, ok := strings.CutPrefix(line, prefix)
	var m message
	return m, ok && json.Unmarshal([]byte(rest), &m) == nil
}

// A transcript holds the lines that a party has printed. Its methods may be called concurrently.
type transcript struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{} // closed at the next line
}

func newTranscript() *transcript { return &transcript{more: make(chan struct{})} }

func (s *transcript) add(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, line)
	close(s.more)
	s.more = make(chan struct{})
}

func (s *transcript) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.lines)
}

// find blocks until n lines match, and returns the last of them. It reports whether that was within patience.
func (s *transcript) find(n int, match func(string) bool) (string, bool) {
	late := time.After(patience)
	for at := 0; ; {
		s.mu.Lock()
		lines, more := s.lines[at:], s.more
		s.mu.Unlock()
		for _, l := range lines {
			if at++; match(l) {
				if n--; n == 0 {
					return l, true
				}
			}
		}
		select {
		case <-more:
		case <-late:
			return "", false
		}
	}
}
