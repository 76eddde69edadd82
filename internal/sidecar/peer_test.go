package sidecar

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/link"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// A peer that reads nothing does not hold up commands to others: messages that exceed its queue are refused at once,
// however many, and a request to another peer is carried out in between.
func TestFlood(t *testing.T) {
	const size, enough = 256 << 10, 200
	meet := newSignaling(t)
	settings := func(key string) Settings {
		set := meet(key)
		set.Limits.MaxMessage = 1 << 20 // so that not much may wait
		return set
	}
	alice := newAgent(t, settings("alice")).greeted()
	bob := newAgent(t, settings("bob")).greeted()
	for _, a := range []*agent{alice, bob} {
		a.expect("peer_connected")
	}
	carol := newAgent(t, settings("carol")).greeted()
	for range 2 {
		carol.expect("peer_connected")
	}
	for _, a := range []*agent{alice, bob} {
		a.expect("peer_connected")
	}
	bob.say(`{"type":"pause","payload":{"peer_id":"alice"}}`)
	bob.say(`{"type":"list_peers"}`)
	bob.expect("peer_list") // the last that he reads

	accepted, refused := 0, 0
	filler := strings.Repeat("x", size)
	for i := 0; refused < enough; i++ {
		id := fmt.Sprint(i)
		alice.send("bob", `{"type":"note","request_id":"`+id+`","payload":"`+filler+`"}`)
		alice.send("carol", `{"type":"x_request","request_id":"`+id+`"}`)
		if e := carol.expect("message"); e.Payload["message"].(map[string]any)["request_id"] != id {
			t.Fatalf("carol got %v", e)
		}
		carol.send("alice", `{"type":"x_response","request_id":"`+id+`"}`)
		why := ""
		for e := alice.hear(); e.Type != "message"; e = alice.hear() {
			switch e.Type {
			case "pause", "resume": // ignored
			case "error":
				if e.Payload["request_id"] != id {
					t.Errorf("message %d: an error for another one: %v", i, e)
				}
				why, _ = e.Payload["code"].(string)
			default:
				t.Errorf("message %d: got %v", i, e)
			}
		}
		switch wire.Code(why) {
		case "":
			accepted++
		case wire.CodeQueueFull:
			refused++
		default:
			t.Errorf("message %d failed with %q", i, why)
		}
	}
	// The bound of alice's queue to bob, and what his sidecar takes while he is halted.
	const transport = 16 << 20
	if most := outboundHigh + crossing(settings("").Limits) + haltedAllowance + transport; accepted*size > most {
		t.Errorf("%d MiB were accepted for a peer that does not read", accepted*size>>20)
	}
}

// An agent that misses an event because it does not read would be wrong about its peers for good, so its link ends.
func TestAgentDoesNotRead(t *testing.T) {
	var log testutil.LogBuffer
	near, _ := link.Pipe()
	s := &Sidecar{link: near, log: zerolog.New(&log)}
	big := append(bytes.Repeat([]byte("x"), 1<<20), '\n')
	for range 100 {
		s.event(nil, func(b []byte) []byte { return append(b, big...) })
	}
	if err := near.WriteNow(nil, func(b []byte) []byte { return b }); !errors.Is(err, link.ErrClosed) {
		t.Errorf("the link: %v", err)
	}
	if n := log.Count("agent not reading; closing link"); n != 1 {
		t.Errorf("it is in the log %d times", n)
	}
}
