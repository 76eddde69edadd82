//go:build !js

package rtc

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

func TestCut(t *testing.T) {
	long := strings.Repeat("x", 2*wire.SliceSize)
	tests := []struct {
		name  string
		lines string
		toEnd bool
		want  int
	}{
		{"nothing", "", false, 0},
		{"all fits", "a\nb\n", false, 4},
		{"up to a line end", "a\nb\n", true, 2},
		{"long line", long, false, wire.SliceSize},
		{"long line, no end in sight", long, true, wire.SliceSize},
		{"end of a long line", long[:10] + "\n" + long, true, 11},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := cut([]byte(tt.lines), tt.toEnd); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func never([]byte) bool { return false }

func TestOutboxMarks(t *testing.T) {
	o := newOutbox(100, 50, never)
	msg := []byte(strings.Repeat("x", 59)) // 60 with its newline
	check := func(what string, congested bool) {
		t.Helper()
		if o.congested.Load() != congested {
			t.Errorf("%s: congested %t", what, !congested)
		}
	}
	o.addMessage(msg, 150)
	check("60 bytes", false)
	o.addMessage(msg, 150)
	check("120 bytes", true)
	if r := o.addMessage(msg, 150); r != addedFull {
		t.Errorf("over the limit: %d", r)
	}
	before := o.size()
	if o.addCancel("r"); o.size() == before {
		t.Error("no room for a cancel")
	}
	lines := o.take(nil)
	check("taken", true) // the writer still has it
	o.sent(60)
	check("between the marks", true)
	o.sent(len(lines) - 60)
	check("empty", false)
	if o.size() != 0 {
		t.Errorf("%d bytes", o.size())
	}
	o.addMessage(msg, 150)
	if lost := o.close(); lost != 60 || o.size() != 0 {
		t.Errorf("lost %d, left %d", lost, o.size())
	}
	if r := o.addMessage(msg, 150); r != addedClosed {
		t.Errorf("after close: %d", r)
	}
	o.sent(60)
	if o.size() != 0 {
		t.Errorf("%d bytes after close", o.size())
	}
}

// Cancels have room of their own: as many as there are, they take none from messages, and their number is bounded.
func TestOutboxCancels(t *testing.T) {
	o := newOutbox(1<<20, 1<<18, never)
	for range 100_000 {
		o.addCancel(strings.Repeat("\x00", 100)) // which takes six times as much as text
	}
	if n := o.size(); n > cancelRoom || n < cancelRoom/2 {
		t.Errorf("%d bytes of cancels are queued, want %d", n, cancelRoom)
	}
	if r := o.addMessage(make([]byte, 100), 101); r != added {
		t.Errorf("a message behind cancels: %d", r)
	}
	lines := o.take(nil)
	o.sent(len(lines))
	before := o.size()
	if o.addCancel("again"); o.size() == before {
		t.Error("no room for a cancel after those before were sent")
	}
}

// What is queued takes little more memory than its bytes, and is given back piece by piece as it is sent.
func TestOutboxPieces(t *testing.T) {
	o := newOutbox(1<<20, 1<<18, never)
	const n, size = 20_000, 1000
	for i := range n {
		m := []byte(strings.Repeat(string(rune('a'+i%26)), size))
		if r := o.addMessage(m, 1<<30); r != added {
			t.Fatal(r)
		}
	}
	o.setDrain(7)
	held := cap(o.lines)
	for _, piece := range o.full {
		held += cap(piece)
	}
	if queued := o.size(); held > queued+queued/4 {
		t.Errorf("%d bytes take %d", queued, held)
	}
	var all, used []byte
	for {
		used = o.take(used)
		if len(used) == 0 {
			break
		}
		if len(used) > 2*sealSize {
			t.Errorf("the writer got %d bytes at once", len(used))
		}
		all = append(all, used...)
		o.sent(len(used))
	}
	lines := strings.SplitAfter(string(all), "\n")
	if len(lines) != n+2 || lines[n] != `["drain",7]`+"\n" || lines[27][0] != 'b' || o.size() != 0 {
		t.Errorf("%d lines, the last is %q; %d bytes are left", len(lines)-1, lines[n], o.size())
	}
}

func TestOutboxPause(t *testing.T) {
	o := newOutbox(100, 50, never)
	if b := o.takeControl(); b != nil || o.controlPending() {
		t.Errorf("%q at first", b)
	}
	o.setPause(pauseOn)
	o.setPause(pauseOff)
	if b := o.takeControl(); string(b) != "[\"resume\"]\n" {
		t.Errorf("%q, the last one counts", b)
	}
	o.setPause(pauseOn)
	if b := o.takeControl(); string(b) != "[\"pause\"]\n" {
		t.Errorf("%q", b)
	}
	if b := o.takeControl(); b != nil {
		t.Errorf("%q twice", b)
	}
}

func TestOutboxGivesMemoryBack(t *testing.T) {
	o := newOutbox(1<<20, 1<<18, never)
	big := make([]byte, 2*keepBusy)
	o.addMessage(big, 1<<30)
	lines := o.take(nil)
	o.addMessage(big[:10], 1<<30)
	lines = o.take(lines)
	if cap(o.lines) > keepBusy {
		t.Errorf("%d bytes kept while busy", cap(o.lines))
	}
	o.addMessage(big[:2*keepIdle], 1<<30)
	lines = o.take(lines)
	if lines = o.shrink(lines[:0]); cap(lines) > keepIdle || cap(o.lines) > keepIdle {
		t.Errorf("%d and %d bytes kept while idle", cap(lines), cap(o.lines))
	}
}

// The responses to any number of drains are one line, which goes between two others.
func TestOutboxDrained(t *testing.T) {
	o := newOutbox(100, 50, never)
	for i := range 1000 {
		o.setDrained(i)
	}
	o.setPause(pauseOn)
	if !o.controlPending() {
		t.Error("nothing pending")
	}
	if b := o.takeControl(); string(b) != "[\"pause\"]\n[\"drained\",999]\n" {
		t.Errorf("%q", b)
	}
	if b := o.takeControl(); b != nil || o.controlPending() {
		t.Errorf("%q twice", b)
	}
}

// A drain goes behind what is queued, however many were asked for.
func TestOutboxDrain(t *testing.T) {
	o := newOutbox(100, 50, never)
	o.addMessage([]byte(`{"n":1}`), 100)
	o.setDrain(1)
	o.addMessage([]byte(`{"n":2}`), 100)
	o.setDrain(3)
	o.setDrain(2)
	lines := o.take(nil)
	if want := `{"n":1}` + "\n" + `{"n":2}` + "\n" + `["drain",3]` + "\n"; string(lines) != want {
		t.Errorf("%q, want %q", lines, want)
	}
	o.sent(len(lines))
	if lines := o.take(nil); len(lines) != 0 || o.size() != 0 {
		t.Errorf("%q left, %d bytes counted", lines, o.size())
	}
}

// A lone message is written by whoever adds it, messages that follow closely by the writer.
// A line is not written ahead of a long one that the writer has in hand, nor into the middle of it.
func TestOutboxOrder(t *testing.T) {
	for _, size := range []int{10, sealSize - 1, sealSize, 3 * sealSize} {
		synctest.Test(t, func(t *testing.T) {
			var direct []string
			o := newOutbox(1<<30, 1, func(lines []byte) bool {
				if len(lines) > 100 {
					return false
				}
				direct = append(direct, string(lines))
				return true
			})
			o.take(nil) // the writer has nothing in hand
			<-time.After(time.Second)
			o.addMessage([]byte(strings.Repeat("x", size)), 1<<30)
			first := string(o.take(nil)) + strings.Join(direct, "")
			direct = nil
			<-time.After(time.Second) // for a line to count as a lone one
			o.addMessage([]byte("next"), 1<<30)
			if size > 100 && len(direct) > 0 {
				t.Errorf("%q is written while the writer has %d bytes in hand", direct, len(first))
			}
			if rest := strings.Join(direct, "") + string(o.take(nil)); len(first) != size+1 || rest != "next\n" {
				t.Errorf("%d bytes, then %q", len(first), rest)
			}
		})
	}
}

func TestOutboxDirect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wrote []string
		takes := true
		o := newOutbox(1000, 500, func(line []byte) bool {
			if takes {
				wrote = append(wrote, string(line))
			}
			return takes
		})
		add := func(msg string, direct bool) {
			t.Helper()
			wrote = nil
			if r := o.addMessage([]byte(msg), 1000); r != added {
				t.Fatalf("%s: %d", msg, r)
			}
			if got := len(wrote) == 1 && wrote[0] == msg+"\n"; got != direct {
				t.Errorf("%s: written directly: %t", msg, got)
			}
		}
		add(`{"before":"the writer"}`, false)
		if o.take(nil); o.take(nil) != nil {
			t.Fatal("the writer found more")
		}
		<-time.After(time.Second)
		add(`{"n":1}`, true)
		add(`{"n":2}`, false)
		<-time.After(time.Second)
		add(`{"n":3}`, false) // behind the one that waits
		if lines := o.take(nil); string(lines) != `{"n":2}`+"\n"+`{"n":3}`+"\n" {
			t.Errorf("the writer got %q", lines)
		}
		<-time.After(time.Second)
		add(`{"n":4}`, false) // the writer has not sent those
		o.take(nil)
		o.take(nil)
		o.setPause(pauseOn)
		add(`{"n":5}`, false) // the pause goes first
		o.takeControl()
		o.take(nil)
		o.take(nil)
		takes = false
		add(`{"n":6}`, false) // it would have to wait
		if lines := o.take(nil); string(lines) != `{"n":6}`+"\n" {
			t.Errorf("the writer got %q", lines)
		}
	})
}
