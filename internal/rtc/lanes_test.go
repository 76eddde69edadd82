//go:build !js

package rtc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// A lanesTest is a link whose near end may have little on its way.
type lanesTest struct {
	t       *testing.T
	near    *Node
	far     *Peer
	channel *memoryChannel
	read    streamEvents
}

func newLanesTest(t *testing.T, remote description, lanes bool) *lanesTest {
	l := &lanesTest{t: t}
	var farDC *memoryChannel
	l.channel, farDC = memoryChannels()
	l.near, l.far = startEnd(remote, l.channel, &events{})
	_, back := startEnd(remote, farDC, &l.read)
	l.far.announce()
	back.announce()
	l.pass()
	l.far.lanes.Store(lanes) // whatever its hello has said
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
		lanes  bool
		want   []string
	}{
		"base":   {description{}, false, []string{"first", "second", "call", "long", "third"}},
		"stream": {withDrain, false, []string{"first", "pause", "call", "long", "cancel", "second", "third"}},
		"lanes":  {withDrain, true, []string{"pause", "call", "long", "cancel", "first", "second", "third"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLanesTest(t, tt.remote, tt.lanes)
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
		l := newLanesTest(t, withDrain, true)
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
	for name, lanes := range map[string]bool{"one stream": false, "two streams": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLanesTest(t, withDrain, lanes)
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

// Text and binary messages are streams of their own, each with its lines in order, and neither before the hello.
func TestTwoStreams(t *testing.T) {
	hello := wire.AppendPeerHello(nil, wire.Greeting{Protocol: 1})
	for name, tt := range map[string]struct {
		hello []byte
		texts string // what is after a | is a text message, up to the next |
		want  []string
		ends  bool
	}{
		"interrupted":         {hello, `{"type":"b"|{"type":"a||"}` + "\n" + `|,"n":1}` + "\n", []string{"a", "b"}, false},
		"character by itself": {hello, `{"ty|{"ty|pe":"b"}` + "\n|" + `pe":"a"}` + "\n", []string{"b", "a"}, false},
		"several lines":       {hello, `|{"type":"a"}` + "\n" + `{"type":"b"}` + "\n" + `{"type":"c`, []string{"a", "b"}, false},
		"an invalid line":     {hello, `{"type":"b"|]` + "\n" + `{"type":"a"}` + "\n|}\n", []string{"rejected", "a", "b"}, false},
		"control lines":       {hello, `{"type":"b"|["pause"]` + "\n|}\n", []string{"pause", "b"}, false},
		"before the hello":    {nil, `|{"type":"a"}` + "\n", nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := memoryChannels()
				var read streamEvents
				_, p := startEnd(withDrain, far, &read)
				var reason error
				p.down = func(err error) { reason = err }
				if tt.hello != nil {
					_, _ = near.WriteDataChannel(tt.hello, false)
				}
				for i, part := range strings.Split(tt.texts, "|") {
					if part != "" {
						_, _ = near.WriteDataChannel([]byte(part), i%2 == 1)
					}
				}
				synctest.Wait()
				l := lanesTest{}
				l.read.log = read.log
				if got := l.arrived(); !slices.Equal(got, append([]string{"connected"}, tt.want...)) && !tt.ends {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				if tt.ends != errors.Is(reason, ErrViolation) {
					t.Errorf("the link ends: %v", reason)
				}
				close(far.in)
				p.end(ErrClosed)
				close(near.in)
				synctest.Wait()
			})
		})
	}
}
