package sidecar

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/link"
	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/relief"
	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/testutil/hostile"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// attacked returns a sidecar's agent, which has a link to a hostile peer named mallory.
func attacked(t *testing.T) (*agent, *rtc.Peer) {
	t.Helper()
	url := newServer(t)
	a := newAgent(t, settingsFor(url, "alice")).greeted()
	mallory := hostile.Join(t, url, "mallory").Link("alice")
	a.expect("peer_connected")
	return a, mallory
}

// A victim is a sidecar whose network is the test. Its agent knows all extensions and does not read until it is told to.
type victim struct {
	*Sidecar
	t   *testing.T
	log testutil.LogBuffer
	far *link.Link // the agent's end
}

func newVictim(t *testing.T) *victim {
	t.Helper()
	near, far := link.Pipe()
	v := &victim{t: t, far: far}
	v.Sidecar = &Sidecar{link: near, log: zerolog.New(&v.log), outside: logs.NewOutside(zerolog.New(&v.log), logs.AgentBurst),
		peers: make(map[string]*peer), streams: newStreams()}
	v.terms.Store(&terms{features: wire.Features()})
	var running sync.WaitGroup
	running.Go(near.Run)
	running.Go(far.Run)
	t.Cleanup(func() { near.Close(); running.Wait() })
	return v
}

// command has the agent say a line.
func (v *victim) says(line string) {
	v.t.Helper()
	var cmd wire.Line
	if err := wire.ParseCommand([]byte(line), wire.Limits{}, &cmd); err != nil {
		v.t.Fatal(err)
	}
	v.command(v.t.Context(), &cmd)
}

// reads has the agent take what waits and comes; take gets every line until the end.
func (v *victim) reads(take func(line string)) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		v.far.Serve(func(line []byte, err error) bool {
			if err == nil {
				take(string(line))
			}
			return err == nil
		})
	}()
	v.t.Cleanup(func() { v.link.Close(); <-ended })
}

// A held is a peer link in the hand of the test.
type held struct {
	v       *victim
	id      string
	unread  atomic.Bool
	streams bool // it has some
	inline  bool
	ended   atomic.Bool
	pauses  atomic.Int64
	refuses error // of Send

	last string // said
	line wire.PeerLine
}

// queuedOf returns how many bytes of a peer's lines the agent has not taken.
func (v *victim) queuedOf(h *held) int {
	p := v.peerOf(h)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queued
}

func (v *victim) meet(id string) *held {
	h := &held{v: v, id: id}
	v.peerConnected(h)
	return h
}

func (h *held) Key() string                  { return "" }
func (h *held) Card() []byte                 { return h.line.Card }
func (h *held) ID() string                   { return h.id }
func (h *held) Extended() bool               { return true }
func (h *held) Send([]byte, wire.Lane) error { return h.refuses }
func (h *held) Unacknowledged(wire.Lane) int { return 0 }
func (h *held) Cancel(string)                {}
func (h *held) Pause(wire.Stop)              { h.pauses.Add(1) }
func (h *held) Resume()                      {}
func (h *held) SetReading(on bool)           { h.unread.Store(!on) }
func (h *held) Stats() wire.PeerStats        { return wire.PeerStats{PeerID: h.id} }
func (h *held) StreamsBegun() bool           { return h.streams }
func (h *held) Inline() bool                 { return h.inline }
func (h *held) Leave(func())                 {}

func (h *held) Attend(context.Context, *relief.Guest) {}
func (h *held) Violation(string)                      { h.ended.Store(true) }

// says has the peer say a line, if it is read.
func (h *held) says(line string) bool {
	h.v.t.Helper()
	if h.unread.Load() {
		return false
	}
	if line != h.last { // parsing takes most of the time, and more with -race
		if err := wire.ParsePeerLine([]byte(line), wire.Limits{}, &h.line); err != nil {
			h.v.t.Fatal(err)
		}
		h.last = line
	}
	h.v.peerLine(h, &h.line)
	return true
}

// flood has the peer say lines as long as it is read, up to most bytes, and returns how many bytes that were.
func (h *held) flood(most int, line func(i int) string) (sent int) {
	h.v.t.Helper()
	for i := 0; sent < most; i++ {
		l := line(i)
		if !h.says(l) {
			break
		}
		sent += len(l)
	}
	return sent
}

// Whatever a peer sends to an agent that does not read, the link to the agent does not end, and the memory that it takes
// is bounded for each peer.
func TestUnreadAgent(t *testing.T) {
	id := strings.Repeat("c", 1000)
	for name, line := range map[string]func(i int) string{
		"cancels":        func(int) string { return `["cancel","` + id + `"]` },
		"small cancels":  func(int) string { return `["cancel","c"]` },
		"cards":          func(int) string { return `["card",{"name":"` + id + `"}]` },
		"small messages": func(int) string { return `{"type":"x"}` },
		"messages":       func(int) string { return `{"type":"x","payload":"` + id + `"}` },
	} {
		t.Run(name, func(t *testing.T) {
			v := newVictim(t)
			mallory, trudy := v.meet("mallory"), v.meet("trudy")
			before := memory()
			sent := mallory.flood(150<<20, func(i int) string {
				trudy.says(line(i)) // so that no two lines in a row are one peer's
				return line(i)
			})
			trudy.flood(150<<20, line)
			taken := memory() - before
			t.Logf("%d MiB of each peer were taken, %d MiB are in use", sent>>20, taken>>20)
			if !mallory.unread.Load() || !trudy.unread.Load() {
				t.Errorf("%d MiB of each peer were taken and they are still read", sent>>20)
			}
			if most := int64(2 * (inboundHard + inboundHard/4)); taken > most {
				t.Errorf("%d bytes are in use, want at most %d", taken, most)
			}
			if v.log.Count("agent not reading") > 0 {
				t.Error("the agent's link was closed")
			}
			v.reads(func(string) {})
			testutil.Eventually(t, "reading to go on", func() bool { return !mallory.unread.Load() && !trudy.unread.Load() })
		})
	}
}

// memory returns how many bytes of heap are in use.
func memory() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// What an agent is told of commands that a full queue refused is charged to that queue's peer.
func TestRefusalsAreCharged(t *testing.T) {
	v := newVictim(t)
	mallory := v.meet("mallory")
	mallory.refuses = &wire.Error{Code: wire.CodeQueueFull, Text: "full"}
	id := strings.Repeat("i", 1000)
	for range 20 << 10 {
		v.says(`{"type":"send","payload":{"target_peer":"mallory","message":{"type":"x","request_id":"` + id + `"}}}`)
	}
	if v.log.Count("agent not reading") > 0 {
		t.Error("the agent's link was closed")
	}
	if mallory.pauses.Load() == 0 || !mallory.unread.Load() {
		t.Errorf("the peer was asked to pause %d times, and is not read: %t", mallory.pauses.Load(), mallory.unread.Load())
	}
}

// A cancel whose id is too long to be worth it is dropped.
func TestLongCancels(t *testing.T) {
	a, mallory := attacked(t)
	hostile.Say(mallory, `["cancel","`+strings.Repeat("c", 1<<20)+`"]`)
	hostile.Say(mallory, `["cancel","short"]`)
	if e := a.expect("cancel"); e.Payload["request_id"] != "short" {
		t.Errorf("got %.100v", e)
	}
}

// However often a peer says pause and resume, no more than one word waits for the agent, and the last one is right.
func TestPausesAreCoalesced(t *testing.T) {
	const n = 20_000
	for _, last := range []string{"pause", "resume"} {
		v := newVictim(t)
		mallory := v.meet("mallory")
		mallory.says(`{"type":"before"}`)
		for i := range n {
			mallory.says([]string{`["pause"]`, `["resume"]`}[i%2])
		}
		mallory.says(`["` + last + `"]`)
		var lines testutil.Record[string]
		v.reads(func(line string) {
			if strings.Contains(line, `"pause"`) || strings.Contains(line, `"resume"`) {
				lines.Add(line)
			}
		})
		lines.Wait(t, "the last word", func(all []string) bool {
			return len(all) > 0 && strings.Contains(all[len(all)-1], last)
		})
		if got := lines.Len(); got > 4 {
			t.Errorf("%d lines for %d changes", got, n)
		}
	}
}

// A paused peer is not read any more after so much, whatever its messages look like.
func TestNothingIsExemptFromPause(t *testing.T) {
	filler := strings.Repeat("x", 32<<10)
	for _, typ := range []string{"a_response", "pong", "x_stream_chunk", "x_request", "x"} {
		t.Run(typ, func(t *testing.T) {
			v := newVictim(t)
			v.reads(func(string) {})
			mallory := v.meet("mallory")
			v.says(`{"type":"pause","payload":{"peer_id":"mallory"}}`)
			line := fmt.Sprintf(`{"type":"%s","request_id":"1","payload":"%s"}`, typ, filler)
			sent := mallory.flood(200<<20, func(int) string { return line })
			if most := haltedAllowance + haltedAllowance/8; sent > most {
				t.Errorf("%d MiB were taken from a paused peer", sent>>20)
			}
		})
	}
}

// A peer whose streams would stop with its messages loses the link instead.
func TestIgnoredPauseWithStreams(t *testing.T) {
	for _, streams := range []bool{true, false} {
		v := newVictim(t)
		v.reads(func(string) {})
		mallory := v.meet("mallory")
		mallory.streams = streams
		v.says(`{"type":"pause","payload":{"peer_id":"mallory"}}`)
		line := `{"type":"x","payload":"` + strings.Repeat("x", 1<<20) + `"}`
		for sent := 0; sent < 2*haltedAllowance && mallory.says(line); sent += len(line) {
			v.taken(mallory) // what is not taken would not be read, either
		}
		if mallory.ended.Load() != streams {
			t.Errorf("streams %t: the link has ended: %t", streams, mallory.ended.Load())
		}
	}
}

// Nothing of a peer is read while its agent says so, responses that it waits for included.
func TestPauseAll(t *testing.T) {
	v := newVictim(t)
	v.reads(func(string) {})
	bob := v.meet("bob")
	v.says(`{"type":"send","payload":{"target_peer":"bob","message":{"type":"x_request","request_id":"1"}}}`)
	for _, step := range []struct {
		line   string
		unread bool
	}{
		{`{"type":"pause","payload":{"peer_id":"bob"}}`, false},
		{`{"type":"pause","payload":{"peer_id":"bob","all":true}}`, true},
		{`{"type":"pause","payload":{"peer_id":"bob","all":false}}`, false},
		{`{"type":"pause","payload":{"peer_id":"bob","all":true}}`, true},
		{`{"type":"resume","payload":{"peer_id":"bob"}}`, false},
	} {
		v.says(step.line)
		testutil.Eventually(t, step.line, func() bool { return bob.unread.Load() == step.unread })
	}
}

// taken waits until the agent has taken what the peer has said.
func (v *victim) taken(h *held) {
	v.t.Helper()
	testutil.Eventually(v.t, "the agent to take it", func() bool {
		p := v.peerOf(h)
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.queued == 0
	})
}

// The responses to the agent's own requests pass a pause, or two busy agents could wait for each other for ever. Of those
// that it has given up none do.
func TestResponsesPassPause(t *testing.T) {
	const n = 100
	response := `{"type":"x_response","request_id":"1","payload":"` + strings.Repeat("x", 1<<20) + `"}`
	for _, cancelled := range []bool{false, true} {
		v := newVictim(t)
		v.reads(func(string) {})
		bob := v.meet("bob")
		v.says(`{"type":"pause","payload":{"peer_id":"bob"}}`)
		for i := range n {
			v.says(fmt.Sprintf(`{"type":"send","payload":{"target_peer":"bob","message":{"type":"x_request","request_id":"%d"}}}`, i))
			if cancelled {
				v.says(fmt.Sprintf(`{"type":"cancel","payload":{"target_peer":"bob","request_id":"%d"}}`, i))
			}
		}
		said := 0
		for said < n && bob.says(response) {
			said++
			v.taken(bob)
		}
		if cancelled != (said < n) {
			t.Errorf("%d of %d responses were read, given up: %t", said, n, cancelled)
		}
	}
}

// What an outsider says is not in the log whole.
func TestLogFieldsAreCut(t *testing.T) {
	a, mallory := attacked(t)
	long := strings.Repeat("y", 1<<20)
	a.send("mallory"+long, `{"type":"x","request_id":"`+long+`"}`)
	a.expect("error")
	a.say(`{"type":"` + long + `"}`)
	a.expect("error")
	for range 2000 {
		hostile.Say(mallory, `{"type":7,"`+long[:1000]+`":1}`)
	}
	hostile.Say(mallory, `{"type":"after"}`)
	a.expect("message")
	if n := len(a.log.String()); n > 256<<10 {
		t.Errorf("%d bytes are logged", n)
	}
	for l := range strings.Lines(a.log.String()) {
		if len(l) > 4<<10 {
			t.Errorf("a line of %d bytes: %.200s", len(l), l)
		}
	}
}

// A peer that comes and goes without end does not fill the log.
func TestComingsAreSampled(t *testing.T) {
	v := newVictim(t)
	for i := range 10_000 {
		v.peerDisconnected(v.meet(fmt.Sprint(i)), rtc.ErrPeerClosed)
	}
	if n := v.log.Count("\n"); n > 500 {
		t.Errorf("%d lines are logged", n)
	}
}

// A peer whose ordered messages are held back may go on with requests, and remains read. One that goes on with what is held
// back does not.
func TestRequestsWhileOrderedIsPaused(t *testing.T) {
	for name, tt := range map[string]struct {
		head   string
		unread bool
	}{
		"requests": {`{"type":"x_request","request_id":"1","payload":"`, false},
		"notes":    {`{"type":"x","payload":"`, true},
		"chunks":   {`{"type":"x_stream_chunk","request_id":"1","payload":"`, true},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVictim(t)
			v.reads(func(string) {})
			bob := v.meet("bob")
			v.says(`{"type":"pause","payload":{"peer_id":"bob","ordered":true}}`)
			testutil.Eventually(t, "the pause", func() bool { return bob.pauses.Load() > 0 })
			line := tt.head + strings.Repeat("x", 32<<10) + `"}`
			for sent := 0; sent < 100<<20 && !bob.unread.Load(); {
				sent += bob.flood(100<<20-sent, func(int) string { return line })
				testutil.Eventually(t, "the agent has read all", func() bool { return v.queuedOf(bob) == 0 }) // or it is slow that counts
			}
			if bob.unread.Load() != tt.unread {
				t.Errorf("not read: %t", bob.unread.Load())
			}
		})
	}
}
