//go:build linux || darwin

package interop

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// A fixture is a line of docs/fixtures.
type fixture struct {
	Name, From, To, Line, Expect string
	Base                         bool
}

func fixtures(t *testing.T, file string) []fixture {
	t.Helper()
	f, err := os.Open(filepath.Join(root, "docs", "fixtures", file))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var all []fixture
	scan := bufio.NewScanner(f)
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		var c fixture
		if err := json.Unmarshal(scan.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	if len(all) < 10 || scan.Err() != nil {
		t.Fatalf("%d fixtures in %s, %v", len(all), file, scan.Err())
	}
	return all
}

// TestBadCommands: the sidecar logs and counts every bad line of a base-only agent, sends it nothing about the line,
// and carries out the next command.
func TestBadCommands(t *testing.T) {
	st := newStage(t)
	ann := st.enter(t, kindNamed("BaseAgent"), "ann")
	bob := st.enter(t, kindNamed("InProcess"), "bob")
	ann.await(1, "+ bob")
	bob.await(1, "+ ann")
	bad := []string{"not UTF-8: \xff\xfe", `{"type":"send","payload":{"target_peer":"` + strings.Repeat("x", 17<<20) + `"}}`}
	for _, c := range fixtures(t, "link.jsonl") {
		if c.To == "sidecar" && c.Expect == "error" {
			bad = append(bad, c.Line)
		}
	}
	before := len(ann.said().all())
	for i, line := range bad {
		if err := ann.console.(*baseAgent).raw([]byte(line)); err != nil {
			t.Fatal(err)
		}
		ann.pings(bob, i)
	}
	if got := len(ann.said().all()) - before; got != len(bad) {
		t.Errorf("ann heard %d lines, want only the %d answers of bob", got, len(bad))
	}
	ann.until("every line is in the log, or counted", func() bool {
		return strings.Count(ann.log(), "line from the agent rejected") == len(bad)
	})
}

// TestBadPeer: no line of a peer forges a line on the link or reaches an agent as anything but a message, and the
// peer link stays up.
func TestBadPeer(t *testing.T) {
	full(t)
	const twice = `{"type":"x","type":"y"}`
	deep := `{"type":"x","payload":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + "}"
	bad := []string{
		"{\"type\":\"x\",\"payload\":\"\xff\"}", "\xff\xfe", deep, `7`, `"x"`, `null`, `{`, "\x00",
		`{"type":"x"}},"payload":{}}`, `{"type":7}`, twice,
	}
	for _, c := range fixtures(t, "peerlink.jsonl") {
		if c.Expect == "error" && c.Base {
			bad = append(bad, c.Line)
		}
	}
	for _, to := range kinds {
		if !to.sidecar {
			continue
		}
		for _, framing := range []string{"base", "stream"} {
			t.Run(to.name+"/"+framing, func(t *testing.T) {
				t.Parallel()
				lines := bad
				command := baseSidecarCommand
				if framing == "stream" {
					command = hostileCommand
					// Two objects with a line break between them are two lines here, and an array is a control line.
					lines = slices.DeleteFunc(slices.Clone(bad), func(l string) bool { return strings.Contains(l, "\n") })
				}
				if to.name == "Chromium" {
					// A browser's parser takes the last of two equal keys, and its data channels drop text that
					// is not UTF-8 before the page sees it.
					lines = slices.DeleteFunc(slices.Clone(lines), func(l string) bool {
						return l == twice || framing == "base" && !utf8.ValidString(l)
					})
				}
				st := newStage(t)
				ann := st.enter(t, to, "ann")
				eve := st.enter(t, &kind{name: "hostile", start: startBaseAgent(command)}, "eve")
				ann.await(1, "+ eve")
				eve.await(1, "+ ann")
				heard := len(ann.said().all())
				for _, l := range lines {
					eve.hurl("ann", l)
				}
				eve.hurl("ann", `{"type":"good"}`)
				ann.heard("eve", "good")
				ann.rejects(len(lines))
				got := slices.DeleteFunc(ann.said().all()[heard:], isComplaint)
				if len(got) != 1 || ann.times("- eve") != 0 {
					t.Errorf("ann heard %q", got)
				}
			})
		}
	}
}

func hostileCommand(t *testing.T) *exec.Cmd {
	cmd := baseSidecarCommand(t)
	cmd.Env = append(cmd.Env, hostileStream+"=1")
	return cmd
}

// hurl makes a base sidecar send bytes that it would never send otherwise.
func (p *party) hurl(to, text string) {
	p.t.Helper()
	err := p.console.(*baseAgent).command("raw", map[string]any{"target_peer": to, "bytes": []byte(text)})
	if err != nil {
		p.t.Fatal(err)
	}
}

// rejects blocks until n lines of the peer have been rejected: the sidecar logs them, and a page, which is its own
// sidecar, prints an error.
func (p *party) rejects(n int) {
	p.t.Helper()
	p.until("every line is in the log", func() bool {
		complaints := 0
		for _, l := range p.said().all() {
			if isComplaint(l) {
				complaints++
			}
		}
		return complaints+strings.Count(p.log(), "line from a peer rejected") == n
	})
}

func isComplaint(line string) bool {
	return strings.HasPrefix(line, "error: ") && strings.Contains(line, "eve")
}
