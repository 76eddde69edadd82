//go:build !js

package rtc

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

func TestSlice(t *testing.T) {
	long := strings.Repeat("x", 2*wire.SliceSize)
	euros := strings.Repeat("€", wire.SliceSize) // three bytes each
	tests := []struct {
		name        string
		lines       string
		toEnd, text bool
		want        int
	}{
		{"nothing", "", false, false, 0},
		{"all fits", "a\nb\n", false, false, 4},
		{"up to a line end", "a\nb\n", true, false, 2},
		{"long line", long, false, false, wire.SliceSize},
		{"long line, no end in sight", long, true, true, wire.SliceSize},
		{"end of a long line", long[:10] + "\n" + long, true, false, 11},
		{"bytes", euros, false, false, wire.SliceSize},
		{"characters", euros, false, true, wire.SliceSize - wire.SliceSize%3},
		{"a character ends there", "x" + euros, false, true, wire.SliceSize},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := piece{lines: []byte(tt.lines)}
			if got := len(p.slice(tt.toEnd, tt.text)); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func never([]byte, wire.Lane) bool { return false }

const ordered = wire.LaneOrdered

func TestOutboxMarks(t *testing.T) {
	o := newOutbox(100, 50, false, never)
	msg := []byte(strings.Repeat("x", 59)) // 60 with its newline
	check := func(what string, congested bool) {
		t.Helper()
		if got := o.congestion(); got != wire.StopOrdered && congested || got != wire.StopNothing && !congested {
			t.Errorf("%s: %v is held back", what, got)
		}
	}
	o.addMessage(msg, ordered, 150)
	check("60 bytes", false)
	o.addMessage(msg, ordered, 150)
	check("120 bytes", true)
	if r := o.addMessage(msg, ordered, 150); r != addedFull {
		t.Errorf("over the limit: %d", r)
	}
	before := o.size()
	if o.addCancel("r"); o.size() == before {
		t.Error("no room for a cancel")
	}
	lines := o.take(ordered, nil)
	check("taken", true) // the writer still has it
	o.sent(ordered, 60)
	check("between the marks", true)
	o.sent(ordered, len(lines)-60)
	check("empty", false)
	o.sent(wire.LaneCalls, len(o.take(wire.LaneCalls, nil)))
	if o.size() != 0 {
		t.Errorf("%d bytes", o.size())
	}
	o.addMessage(msg, ordered, 150)
	if lost := o.close(); lost != 60 || o.size() != 0 {
		t.Errorf("lost %d, left %d", lost, o.size())
	}
	if r := o.addMessage(msg, ordered, 150); r != addedClosed {
		t.Errorf("after close: %d", r)
	}
	o.sent(ordered, 60)
	if o.size() != 0 {
		t.Errorf("%d bytes after close", o.size())
	}
}

// Cancels have room of their own: as many as there are, they take none from messages, and their number is bounded.
func TestOutboxCancels(t *testing.T) {
	o := newOutbox(1<<20, 1<<18, false, never)
	for range 100_000 {
		o.addCancel(strings.Repeat("\x00", 100)) // which takes six times as much as text
	}
	if n := o.size(); n > cancelRoom || n < cancelRoom/2 {
		t.Errorf("%d bytes of cancels are queued, want %d", n, cancelRoom)
	}
	if r := o.addMessage(make([]byte, 100), ordered, 101); r != added {
		t.Errorf("a message behind cancels: %d", r)
	}
	lines := o.take(ordered, nil)
	o.sent(ordered, len(lines))
	before := o.size()
	if o.addCancel("again"); o.size() == before {
		t.Error("no room for a cancel after those before were sent")
	}
}

// Cancels make room for others as they are sent, whatever is queued behind them.
func TestOutboxCancelsUnderLoad(t *testing.T) {
	o := newOutbox(1<<30, 1, false, never)
	calls := wire.LaneCalls
	for i := range 3 * cancelRoom / 1000 {
		before := o.size()
		if o.addCancel(strings.Repeat("r", 1000)); o.size() == before {
			t.Fatalf("no room for cancel %d", i)
		}
		o.addMessage([]byte(`{"n":1}`), calls, 1<<30)
		lines := o.take(calls, nil)
		o.addMessage([]byte(`{"n":2}`), calls, 1<<30)
		o.sent(calls, len(lines))
	}
}

// What is queued takes little more memory than its bytes, and is given back piece by piece as it is sent.
func TestOutboxPieces(t *testing.T) {
	o := newOutbox(1<<20, 1<<18, false, never)
	const n, size = 20_000, 1000
	for i := range n {
		m := []byte(strings.Repeat(string(rune('a'+i%26)), size))
		if r := o.addMessage(m, ordered, 1<<30); r != added {
			t.Fatal(r)
		}
	}
	held := cap(o.lanes[ordered].lines)
	for _, piece := range o.lanes[ordered].full {
		held += cap(piece)
	}
	if queued := o.size(); held > queued+queued/4 {
		t.Errorf("%d bytes take %d", queued, held)
	}
	var all, used []byte
	for {
		used = o.take(ordered, used)
		if len(used) == 0 {
			break
		}
		if len(used) > 2*pieceSize {
			t.Errorf("the writer got %d bytes at once", len(used))
		}
		all = append(all, used...)
		o.sent(ordered, len(used))
	}
	lines := strings.SplitAfter(string(all), "\n")
	if len(lines) != n+1 || lines[27][0] != 'b' || o.size() != 0 {
		t.Errorf("%d lines; %d bytes are left", len(lines)-1, o.size())
	}
}

func TestOutboxPause(t *testing.T) {
	o := newOutbox(100, 50, false, never)
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
	o := newOutbox(1<<20, 1<<18, false, never)
	l := &o.lanes[ordered]
	most := pieceSize << (len(buffers) - 1)
	big := make([]byte, 2*most)
	o.addMessage(big, ordered, 1<<30)
	lines := o.take(ordered, nil)
	o.addMessage(big[:10], ordered, 1<<30)
	lines = o.take(ordered, lines)
	if cap(l.lines) > most {
		t.Errorf("%d bytes kept while busy", cap(l.lines))
	}
	o.addMessage(big[:2*keepIdle], ordered, 1<<30)
	hand := [wire.Lanes]piece{ordered: {lines: o.take(ordered, lines)}}
	if !o.rest(&hand) || cap(hand[ordered].lines) > keepIdle || cap(l.lines) > keepIdle {
		t.Errorf("%d and %d bytes kept while idle", cap(hand[ordered].lines), cap(l.lines))
	}
}

// The responses to any number of drains are one line, which goes between two others.
func TestOutboxDrained(t *testing.T) {
	o := newOutbox(100, 50, false, never)
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

// A drain goes behind what was queued before it in all lanes, however many were asked for.
func TestOutboxDrain(t *testing.T) {
	o := newOutbox(100, 50, false, never)
	o.addMessage([]byte(`{"n":1}`), ordered, 100)
	o.setDrain()
	o.addMessage([]byte(`{"n":2}`), wire.LaneCalls, 100)
	o.setDrain()
	o.setDrain()
	o.addMessage([]byte(`{"n":3}`), ordered, 100)
	for _, in := range []wire.Lane{ordered, wire.LaneCalls} {
		if b := o.takeControl(); b != nil {
			t.Errorf("%q ahead of lane %d", b, in)
		}
		o.take(in, nil)
		o.sent(in, 8)
	}
	if b := o.takeControl(); string(b) != `["drain",3]`+"\n" {
		t.Errorf("%q when all before has been sent", b)
	}
	if b := o.takeControl(); b != nil {
		t.Errorf("%q twice", b)
	}
}

// A line is not written ahead of a long one that the writer has in hand, nor into the middle of it.
func TestOutboxOrder(t *testing.T) {
	for _, size := range []int{10, pieceSize - 1, pieceSize, 3 * pieceSize} {
		synctest.Test(t, func(t *testing.T) {
			var direct []string
			o := newOutbox(1<<30, 1, false, func(lines []byte, _ wire.Lane) bool {
				if len(lines) > 100 {
					return false
				}
				direct = append(direct, string(lines))
				return true
			})
			o.rest(new([wire.Lanes]piece)) // the writer has nothing in hand
			<-time.After(time.Second)
			o.addMessage([]byte(strings.Repeat("x", size)), ordered, 1<<30)
			first := string(o.take(ordered, nil)) + strings.Join(direct, "")
			direct = nil
			<-time.After(time.Second) // for a line to count as a lone one
			o.addMessage([]byte("next"), ordered, 1<<30)
			if size > 100 && len(direct) > 0 {
				t.Errorf("%q is written while the writer has %d bytes in hand", direct, len(first))
			}
			if rest := strings.Join(direct, "") + string(o.take(ordered, nil)); len(first) != size+1 || rest != "next\n" {
				t.Errorf("%d bytes, then %q", len(first), rest)
			}
		})
	}
}

func TestOutboxDirect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wrote []string
		takes := true
		o := newOutbox(1000, 500, false, func(line []byte, _ wire.Lane) bool {
			if takes {
				wrote = append(wrote, string(line))
			}
			return takes
		})
		add := func(msg string, direct bool) {
			t.Helper()
			wrote = nil
			if r := o.addMessage([]byte(msg), ordered, 1000); r != added {
				t.Fatalf("%s: %d", msg, r)
			}
			if got := len(wrote) == 1 && wrote[0] == msg+"\n"; got != direct {
				t.Errorf("%s: written directly: %t", msg, got)
			}
		}
		add(`{"before":"the writer"}`, false)
		rest := func() {
			t.Helper()
			if !o.rest(new([wire.Lanes]piece)) {
				t.Error("the writer found more")
			}
		}
		o.take(ordered, nil)
		rest()
		<-time.After(time.Second)
		add(`{"n":1}`, true)
		add(`{"n":2}`, false)
		<-time.After(time.Second)
		add(`{"n":3}`, false) // behind the one that waits
		if lines := o.take(ordered, nil); string(lines) != `{"n":2}`+"\n"+`{"n":3}`+"\n" {
			t.Errorf("the writer got %q", lines)
		}
		<-time.After(time.Second)
		add(`{"n":4}`, false) // the writer has not sent those
		o.take(ordered, nil)
		rest()
		o.setPause(pauseOn)
		add(`{"n":5}`, false) // the pause goes first
		o.takeControl()
		o.take(ordered, nil)
		rest()
		takes = false
		add(`{"n":6}`, false) // it would have to wait
		if lines := o.take(ordered, nil); string(lines) != `{"n":6}`+"\n" {
			t.Errorf("the writer got %q", lines)
		}
	})
}

// The latest of the responses that wait is sent, in whatever order they are asked for.
func TestOutboxDrainedOrder(t *testing.T) {
	o := newOutbox(100, 50, false, never)
	o.setDrained(2)
	o.setDrained(1)
	if b := o.takeControl(); string(b) != "[\"drained\",2]\n" {
		t.Errorf("sent %q", b)
	}
}

// At most one drain is under way to confirm what was written to a socket, and one that waits is not put off.
func TestConfirms(t *testing.T) {
	o := newOutbox(1<<20, 1<<19, false, never)
	asked := 0
	o.byDrains(0, func() { asked++ })
	write := func() {
		o.addMessage([]byte(`{"type":"x"}`), ordered, 1<<20)
		o.sent(ordered, len(o.take(ordered, nil)))
	}
	for range 100 {
		write()
		if asked > 0 {
			o.confirm()
		}
		o.addMessage([]byte(`{"type":"later"}`), ordered, 1<<20) // more always waits
	}
	if asked != 1 {
		t.Errorf("asked %d times for a drain, want once", asked)
	}
	o.sent(ordered, len(o.take(ordered, nil)))
	if lines := o.takeControl(); string(lines) != "[\"drain\",1]\n" {
		t.Errorf("sent %q", lines)
	}
	for range 100 {
		write()
		o.confirm()
	}
	if lines := o.takeControl(); lines != nil || len(o.confirms.marks) != 1 {
		t.Errorf("sent %q although no response has come; %d drains are remembered", lines, len(o.confirms.marks))
	}
	before := o.unconfirmed()
	if o.heardDrained(1); o.unconfirmed() >= before || asked != 2 {
		t.Errorf("%d bytes are unconfirmed after the response, %d before; asked %d times", o.unconfirmed(), before, asked)
	}
	for range 1000 {
		o.setDrain()
		o.takeControl()
	}
	if n := len(o.confirms.marks); n > maxDrainMarks {
		t.Errorf("%d drains without a response are remembered", n)
	}
}
