//go:build !js

package rtc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/relief"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// A sender sends to one end of a link, and learns how that ended.
type sender struct {
	memoryChannel
	events
	peer   *Peer
	rest   channelMessage
	done   chan struct{}
	reason error
}

// ReadDataChannel reads what was sent, of which a part may be left.
func (s *sender) ReadDataChannel(b []byte) (int, bool, error) {
	for len(s.rest.b) == 0 {
		select {
		case s.rest = <-s.in:
		case <-s.done:
			return 0, false, io.EOF
		}
	}
	n := copy(b[:min(len(b), wire.SliceSize)], s.rest.b)
	s.rest.b = s.rest.b[n:]
	return n, s.rest.text, nil
}

// senders makes so many peers, which have said hello, at a node with these limits.
func senders(t *testing.T, n int, limits wire.Limits) []*sender {
	cfg := Config{Limits: limits}.withDefaults()
	memory := newLineMemory(&cfg)
	all := make([]*sender, n)
	for i := range all {
		s := &sender{memoryChannel: memoryChannel{in: make(chan channelMessage)}, done: make(chan struct{})}
		all[i] = s
		s.peer = newPeer(identity.Link{Own: "near", Other: fmt.Sprint(i)}, withDrain, s, maxMessageSize, noRoundTrip, &cfg, s)
		s.peer.useLineMemory(memory)
		s.peer.up = func() {}
		var once sync.Once
		s.peer.down = func(err error) {
			once.Do(func() {
				s.reason = err
				s.peer.end(err)
				close(s.done)
			})
		}
		go s.peer.newReader(new(relief.Watch), func() {}).run()
		s.send(wire.AppendPeerHello(nil, wire.Greeting{Protocol: 1}))
	}
	t.Cleanup(func() {
		for _, s := range all {
			s.peer.down(ErrClosed)
		}
		synctest.Wait()
		if memory.used != 0 || memory.turn != nil || len(memory.lines) != 0 {
			t.Errorf("%d bytes of %d lines are charged when all links have ended", memory.used, len(memory.lines))
		}
	})
	return all
}

// send sends text, unless the link ends meanwhile.
func (s *sender) send(text []byte) {
	select {
	case s.in <- channelMessage{b: text}:
	case <-s.done:
	}
}

func (s *sender) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// waits reports whether its reader waits for memory.
func (s *sender) waits() bool {
	m := s.peer.lines[0].memory
	m.mu.Lock()
	defer m.mu.Unlock()
	return s.peer.lines[0].waits
}

// lineOf returns a message of a length, with its end.
func lineOf(length int) []byte {
	const head, tail = `{"type":"x","payload":"`, `"}`
	return slices.Concat([]byte(head), bytes.Repeat([]byte("x"), length-len(head)-len(tail)), []byte(tail+"\n"))
}

func (s *sender) received() int {
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	return s.lines
}

const longMessage = 512 << 10 // bytes: memory for 16 lines of 576 KiB

var longLimits = wire.Limits{MaxMessage: longMessage}

// TestLinesWithoutEnd: peers that do not end their lines get so much memory together, however many they are. A peer
// that sends lines of a usual length notices nothing. The longest ones wait: those that do not go on are ended, until
// it is their turn.
func TestLinesWithoutEnd(t *testing.T) {
	line := lineOf(longMessage)
	for _, attackers := range []int{16, 300} {
		t.Run(fmt.Sprint(attackers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				all := senders(t, attackers+1, longLimits)
				honest, hostile := all[0], all[1:]
				before := heapInUse()
				for _, s := range hostile {
					go s.send(line[:longMessage])
				}
				synctest.Wait()
				bound := (longestLines+1)*longLimits.MaxLine() + attackers*wire.ReaderKeep
				if held := heapInUse() - before; held > bound {
					t.Errorf("%d KiB are held, at most %d are allowed", held>>10, bound>>10)
				}
				start := time.Now()
				honest.send(lineOf(40_000))
				synctest.Wait()
				if took := time.Since(start); honest.received() != 1 || took != 0 {
					t.Errorf("%d messages of the honest peer came in within %v", honest.received(), took)
				}
				go honest.send(line)
				for honest.received() < 2 && time.Since(start) < 24*time.Hour {
					<-time.After(time.Second)
				}
				took, ended := time.Since(start), 0
				for _, s := range hostile {
					if s.ended() {
						ended++
						if !errors.Is(s.reason, ErrViolation) {
							t.Errorf("ended with %v", s.reason)
						}
					}
				}
				if most := time.Duration(attackers+2) * time.Minute; honest.received() != 2 || honest.ended() || took > most {
					t.Errorf("no room for the honest peer's longest message within %v, %d are ended", took, ended)
				}
				t.Logf("%d ended, within %v", ended, took)
			})
		})
	}
}

func heapInUse() int {
	runtime.GC()
	runtime.GC() // empties pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestLinesAtOnce: however many honest peers send the longest messages at once, all of those arrive.
func TestLinesAtOnce(t *testing.T) {
	for _, peers := range []int{1, 8, 20, 200} {
		t.Run(fmt.Sprint(peers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				all := senders(t, peers, longLimits)
				line := lineOf(longMessage)
				var sending sync.WaitGroup
				defer sending.Wait() // time stands still once the test has ended
				for _, s := range all {
					sending.Go(func() {
						for part := range slices.Chunk(line, 10_000) {
							s.send(part)
							<-time.After(10 * time.Millisecond) // so that they get to the same point together
						}
					})
				}
				for wait := time.Now(); time.Since(wait) < time.Hour; <-time.After(time.Second) {
					if !slices.ContainsFunc(all, func(s *sender) bool { return s.received() == 0 }) {
						break
					}
				}
				for i, s := range all {
					if s.received() != 1 || s.reason != nil {
						t.Errorf("peer %d: %d messages, %v", i, s.received(), s.reason)
					}
				}
			})
		})
	}
}

// TestSlowLine: where there is memory enough, a line may take as long as it likes.
func TestSlowLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, s := range senders(t, 8, longLimits) {
			line := lineOf(longMessage)
			s.send(line[:longMessage])
			<-time.After(24 * time.Hour)
			s.send(line[longMessage:])
			synctest.Wait()
			if s.received() != 1 || s.reason != nil {
				t.Errorf("%d messages, %v", s.received(), s.reason)
			}
		}
	})
}

// TestLinkEndsWhileLineWaits: a reader that waits for memory ends with its link, and gives back what it has.
func TestLinkEndsWhileLineWaits(t *testing.T) {
	for name, end := range map[string]func(*sender){
		"ended here":      func(s *sender) { s.peer.end(ErrClosed) },
		"the far end has": func(s *sender) { s.peer.remoteGone() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				all := senders(t, 40, longLimits)
				for _, s := range all {
					go s.send(lineOf(longMessage)[:longMessage])
				}
				synctest.Wait()
				for _, s := range slices.DeleteFunc(slices.Clone(all), func(s *sender) bool { return !s.waits() }) {
					end(s)
				}
				synctest.Wait()
				ended := 0
				for _, s := range all {
					if s.ended() {
						ended++
					}
				}
				if ended == 0 || ended == len(all) {
					t.Errorf("%d of %d readers have ended", ended, len(all))
				}
			})
		})
	}
}

// TestNoMemoryBetweenLines: a reader that is stopped after a long line keeps no memory of it.
func TestNoMemoryBetweenLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := senders(t, 1, longLimits)[0]
		s.onLine = func() { s.peer.SetReading(false) }
		s.send(lineOf(longMessage))
		synctest.Wait()
		if held := s.peer.lines[0].held; s.received() != 1 || held != 0 {
			t.Errorf("%d messages, and %d bytes are held", s.received(), held)
		}
		s.peer.SetReading(true)
	})
}

// sendText sends a text message.
func (s *sender) sendText(text []byte) {
	select {
	case s.in <- channelMessage{b: text, text: true}:
	case <-s.done:
	}
}

// Short lines in one stream do not make a line without end in the other one younger.
func TestEndlessLineBesideOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := lineOf(longMessage)
		all := senders(t, 41, longLimits)
		honest := all[0]
		for _, s := range all[1:] {
			go func() {
				s.send(line[:longMessage])
				for !s.ended() {
					select {
					case <-time.After(30 * time.Second):
					case <-s.done:
					}
					s.sendText(lineOf(100_000))
				}
			}()
		}
		synctest.Wait()
		go honest.send(line)
		for end := time.Now().Add(2 * time.Hour); honest.received() < 1 && time.Now().Before(end); {
			<-time.After(time.Second)
		}
		if honest.received() != 1 {
			t.Error("the longest message of an honest peer has not arrived")
		}
	})
}

// Peers that always have a long line in each stream are not ended for that, and all of them get on.
func TestLongLinesInBothStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := senders(t, 24, longLimits)
		line := lineOf(longMessage)
		half := len(line) / 2
		for _, s := range all {
			wait := func() {
				select {
				case <-time.After(time.Second):
				case <-s.done:
				}
			}
			go func() {
				s.send(line[:half])
				for !s.ended() {
					wait()
					s.sendText(line[:half])
					wait()
					s.send(line[half:])
					s.send(line[:half])
					wait()
					s.sendText(line[half:])
				}
			}()
		}
		<-time.After(5 * time.Minute)
		received := 0
		for i, s := range all {
			if s.ended() {
				t.Errorf("peer %d has been ended: %v", i, s.reason)
			}
			received += s.received()
		}
		if received < len(all) {
			t.Errorf("%d messages in five minutes", received)
		}
	})
}

// While one stream's line waits for memory the reader reads nothing of the other stream, whose line is no older for that.
func TestLineBesideOneThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Limits: longLimits}.withDefaults()
		m := newLineMemory(&cfg)
		defer m.close()
		peer := func(name string) [2]*longLine {
			end := func(err error) { t.Errorf("%s is ended: %v", name, err) }
			l := [2]*longLine{{memory: m, end: end}, {memory: m, end: end}}
			l[0].other, l[1].other = l[1], l[0]
			return l
		}
		hold := func(l *longLine, size int) {
			if err := l.resize(size + wire.ReaderKeep); err != nil {
				t.Error(err)
			}
		}
		slow, other := peer("the slow one"), peer("the other one")
		hold(other[0], m.max/(2*lineShare))
		hold(slow[0], m.max) // has the turn
		waiting := make(chan struct{})
		go func() {
			hold(other[1], m.max)
			close(waiting)
		}()
		for range 3 {
			<-time.After(m.patience / 2)
			hold(slow[0], m.max) // it goes on
		}
		hold(slow[0], 0)
		<-waiting
		<-time.After(m.patience / 2)
		for _, l := range other {
			hold(l, 0)
		}
	})
}
