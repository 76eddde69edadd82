package mesh

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// However much a sidecar reads before the agent reads what it says, no more than a window of messages, and one more, is ahead of
// the last ping that it has responded to. So no pause comes too late.
func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, count = 100_000, 100
		m, f := newFakeAgentWith(t, Config{}, true, liveness{every: time.Hour, tick: time.Hour, ticks: 1})
		f.connect("bob")
		if err := m.WaitPeer(t.Context(), "bob"); err != nil {
			t.Fatal(err)
		}
		go func() {
			payload := json.RawMessage(`"` + strings.Repeat("x", size) + `"`)
			for range count {
				if err := m.Send(t.Context(), "bob", Message{Type: "x", Payload: payload}); err != nil {
					t.Error(err)
				}
			}
		}()
		var messages, read, confirmed int
		var pings []int // what was read before each that has no response
		for messages < count {
			synctest.Wait()
			for len(f.lines) > 0 {
				line := <-f.lines
				if !strings.HasPrefix(line, `{"type":"send"`) {
					pings = append(pings, read)
					continue
				}
				messages++
				read += len(line)
			}
			if most := windowSize + size + 1000; read-confirmed > most {
				t.Fatalf("%d bytes are ahead of the last response, want %d at most", read-confirmed, most)
			}
			if messages == count {
				break
			}
			if len(pings) == 0 {
				t.Fatalf("%d messages have come, and no ping", messages)
			}
			confirmed, pings = pings[0], pings[1:]
			f.say(`{"type":"pong","payload":{}}`)
		}
	})
}

// A sidecar that knows no ping gets all that the link takes.
func TestNoWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newFakeAgent(t, Config{}, false)
		f.connect("bob")
		if err := m.WaitPeer(t.Context(), "bob"); err != nil {
			t.Fatal(err)
		}
		payload := json.RawMessage(`"` + strings.Repeat("x", 1<<20) + `"`)
		for range 10 {
			if err := m.Send(t.Context(), "bob", Message{Type: "x", Payload: payload}); err != nil {
				t.Fatal(err)
			}
		}
		for range 10 {
			if line := f.heard(); line["type"] != "send" {
				t.Errorf("the agent wrote %v", line["type"])
			}
		}
	})
}
