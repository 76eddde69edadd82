//go:build !js

package rtc

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/chatixia-ai/mesh/internal/wire"
)

var withLanes = description{stream: true, drain: true, lanes: true}

// A lanesTest is a link whose near end may have little on its way.
type lanesTest struct {
	t       *testing.T
	near    *Node
	far     *Peer
	channel *memoryChannel
	read    streamEvents
}

func newLanesTest(t *testing.T, remote description) *lanesTest {
	l := &lanesTest{t: t}
	var farDC *memoryChannel
	l.channel, farDC = memoryChannels()
	l.near, l.far = startEnd(remote, l.channel, &events{})
	_, back := startEnd(remote, farDC, &l.read)
	l.far.announce()
	back.announce()
	l.pass()
	l.far.budget.bytes.Store(budgetLeast)
	l.read.log = nil
	t.Cleanup(func() {
		l.far.end(ErrClosed)
		back.end(ErrClosed)
		close(l.channel.in)
		close(farDC.in)
		synctest.Wait()
	})
	return l
}

// send sends a message of a type, of which some is on its way before the next one is sent.
func (l *lanesTest) send(typ string, size int, in wire.Lane) {
	l.t.Helper()
	msg := fmt.Sprintf(`{"type":%q,"payload":%q}`, typ, strings.Repeat("€", size/3))
	if err := l.far.Send([]byte(msg), in); err != nil {
		l.t.Fatal(err)
	}
	synctest.Wait()
}

// pass acknowledges what is on its way until nothing is left.
func (l *lanesTest) pass() {
	for synctest.Wait(); l.channel.BufferedAmount() > 0; synctest.Wait() {
		l.channel.acknowledge(0)
	}
}

// arrived returns what the far end has read, by types.
func (l *lanesTest) arrived() (all []string) {
	for _, line := range l.read.log {
		line, _, _ = strings.Cut(strings.TrimPrefix(line, `{"type":"`), `"`)
		all = append(all, strings.TrimSpace(line))
	}
	return all
}

// What belongs to calls overtakes ordered messages: at the ends of their lines, or within one where both ends know lanes.
// Each lane keeps its order, and in base framing there is one.
func TestLanes(t *testing.T) {
	for name, tt := range map[string]struct {
		remote description
		want   []string
	}{
		"base":   {description{}, []string{"first", "second", "call", "long", "third"}},
		"stream": {withDrain, []string{"first", "pause", "call", "long", "cancel", "second", "third"}},
		"lanes":  {withLanes, []string{"pause", "call", "long", "cancel", "first", "second", "third"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLanesTest(t, tt.remote)
				l.send("first", 60_000, wire.LaneOrdered)
				l.send("second", 60_000, wire.LaneOrdered)
				l.send("call", 100, wire.LaneCalls)
				l.send("long", 60_000, wire.LaneCalls)
				l.far.Cancel("r")
				l.far.Pause(wire.StopOrdered)
				l.send("third", 100, wire.LaneOrdered)
				l.pass()
				if got := l.arrived(); !slices.Equal(got, tt.want) {
					t.Errorf("got  %q\nwant %q", got, tt.want)
				}
				if l.far.Queued() != 0 {
					t.Errorf("%d bytes are left", l.far.Queued())
				}
			})
		})
	}
}

// A flush ends when what was sent before it in all lanes has been delivered.
func TestLanesFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLanesTest(t, withLanes)
		l.send("first", 200_000, wire.LaneOrdered)
		l.send("call", 200_000, wire.LaneCalls)
		read := -1
		go func() {
			if err := l.near.Flush(context.Background()); err != nil {
				t.Error(err)
			}
			read = len(l.read.log)
		}()
		synctest.Wait()
		l.send("later", 200_000, wire.LaneCalls)
		l.pass()
		if read < 2 || !slices.Contains(l.arrived()[:read], "first") || !slices.Contains(l.arrived()[:read], "call") {
			t.Errorf("Flush has returned when %d of %q were read", read, l.arrived())
		}
	})
}

// Calls without end leave something for ordered messages.
func TestLanesAreFair(t *testing.T) {
	for name, remote := range map[string]description{"stream": withDrain, "lanes": withLanes} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLanesTest(t, remote)
				for range 100 {
					l.send("call", 10_000, wire.LaneCalls)
				}
				l.send("ordered", 100, wire.LaneOrdered)
				l.pass()
				if at := slices.Index(l.arrived(), "ordered"); at < 0 || at > 40 {
					t.Errorf("the ordered message is number %d", at)
				}
			})
		})
	}
}

// Only the lanes that are full hold something back.
func TestLanesCongestion(t *testing.T) {
	for name, tt := range map[string]struct {
		single bool
		in     wire.Lane
		want   wire.Stop
	}{
		"ordered":         {false, wire.LaneOrdered, wire.StopOrdered},
		"calls":           {false, wire.LaneCalls, wire.StopAll},
		"one lane":        {true, wire.LaneOrdered, wire.StopAll},
		"one lane, calls": {true, wire.LaneCalls, wire.StopAll},
	} {
		o := newOutbox(100, 50, tt.single, never)
		o.addMessage(make([]byte, 101), tt.in, 1000)
		if got := o.congestion(); got != tt.want {
			t.Errorf("%s: %v is held back, want %v", name, got, tt.want)
		}
	}
}
