//go:build linux || darwin

package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh"
)

// Codes and streamed replies, between programs in different languages.

// TestCalls: agents of all kinds stream their replies to each other, and tell by codes why a request has failed.
func TestCalls(t *testing.T) {
	full(t)
	names := []string{"InProcess", "Python", "Node", "Chromium"}
	for _, first := range names {
		for _, second := range names {
			t.Run(first+"-"+second, func(t *testing.T) {
				t.Parallel()
				st := newStage(t)
				ann := st.enter(t, kindNamed(first), "ann")
				bob := st.enter(t, kindNamed(second), "bob")
				ann.await(1, "+ bob")
				bob.await(1, "+ ann")
				for _, w := range [][2]*party{{ann, bob}, {bob, ann}} {
					w[0].streamsFrom(w[1])
					w[0].learnsWhy(w[1])
					w[0].leavesStream(w[1])
				}
			})
		}
	}
}

// streamsFrom: the chunks come in order, and the response behind them. Who has not asked for chunks gets that alone.
func (p *party) streamsFrom(to *party) {
	p.t.Helper()
	const n = 20
	p.do(`stream %s {"type":"count_request","request_id":"%s-stream","payload":{"to":%d}}`, to.id, p.id, n)
	equalJSON(p.t, string(p.answered(to.id, p.id+"-stream").Payload), fmt.Sprintf(`{"counted":%d}`, n))
	p.do(`request %s {"type":"count_request","request_id":"%s-plain","payload":{"to":3}}`, to.id, p.id)
	equalJSON(p.t, string(p.answered(to.id, p.id+"-plain").Payload), `{"counted":3}`)
	var got []string
	for _, l := range p.said().all() {
		if chunk, ok := strings.CutPrefix(l, to.id+" streams: "); ok {
			got = append(got, chunk)
		}
		if m, ok := parse(l, to.id+": "); ok && m.Type == "count_stream_chunk" {
			p.t.Errorf("%s (%s) got a chunk as a message: %s", p.id, p.name, l)
		}
	}
	if len(got) != n {
		p.t.Fatalf("%s (%s) got %d chunks of %s (%s), want %d", p.id, p.name, len(got), to.id, to.name, n)
	}
	for i, chunk := range got {
		equalJSON(p.t, chunk, fmt.Sprintf(`{"i":%d}`, i+1))
	}
}

// learnsWhy: the codes of this library and of an application arrive, and the details.
func (p *party) learnsWhy(to *party) {
	p.t.Helper()
	for i, x := range []struct{ request, code, details string }{
		{`"type":"weather_request"`, "no_handler", "null"},
		{`"type":"count_request","payload":{"to":-1}`, "out_of_range", `{"max":1000000}`},
	} {
		for _, verb := range []string{"request", "stream"} {
			id := fmt.Sprintf("%s-%s-why-%d", p.id, verb, i)
			p.do(`%s %s {"request_id":"%s",%s}`, verb, to.id, id, x.request)
			var failed struct {
				Error, Code string
				Details     json.RawMessage
			}
			if err := json.Unmarshal(p.answered(to.id, id).Payload, &failed); err != nil || failed.Error == "" || failed.Code != x.code {
				p.t.Errorf("%s: got %+v, %v", x.request, failed, err)
			}
			if failed.Details == nil {
				failed.Details = json.RawMessage("null")
			}
			equalJSON(p.t, string(failed.Details), x.details)
		}
	}
}

// leavesStream: who gives up a streamed reply ends the work on it.
func (p *party) leavesStream(to *party) {
	p.t.Helper()
	id := p.id + "-left"
	p.do(`stream %s {"type":"count_request","request_id":"%s","payload":{"to":%d}}`, to.id, id, maxCount)
	p.find(21, "more chunks", func(l string) bool { return strings.HasPrefix(l, to.id+" streams: ") })
	p.do("cancel %s", id)
	to.find(1, "that it was given up", func(l string) bool { return strings.HasPrefix(l, p.id+" gave up on ") })
	p.find(1, "that its request has ended", func(l string) bool { return strings.HasPrefix(l, "error: request "+id) })
}

// TestSlowLoop: a loop that is slow makes a handler in another language wait, and nothing is lost. The chunks are more
// than an agent keeps.
func TestSlowLoop(t *testing.T) {
	full(t)
	const n = 150_000
	for _, name := range []string{"InProcess", "Python", "Node", "Chromium"} {
		t.Run(name, func(t *testing.T) {
			st := newStage(t)
			ann := st.enter(t, kindNamed("InProcess"), "ann")
			bob := st.enter(t, kindNamed(name), "bob")
			ann.await(1, "+ bob")
			bob.await(1, "+ ann")
			m := ann.console.(*goParty).Mesh
			var final counted
			ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
			defer cancel()
			i := 0
			for chunk, err := range mesh.CallStream[counting](ctx, m, "bob", "count_request", map[string]int{"to": n}, mesh.Final(&final)) {
				if err != nil {
					t.Fatal(err)
				}
				if i++; chunk.I != i {
					t.Fatalf("got chunk %d, want %d", chunk.I, i)
				}
				if i == 1 {
					ann.until("bob is paused", func() bool { return isPaused(t, m, "bob") })
				}
			}
			if i != n || final.Counted != n {
				t.Errorf("got %d chunks, and counted %d; want %d", i, final.Counted, n)
			}
		})
	}
}

// isPaused reports whether a peer was asked to hold something back.
func isPaused(t *testing.T, m *mesh.Mesh, peer string) bool {
	t.Helper()
	stats, err := m.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stats.Peers {
		if s.Peer.ID == peer {
			return s.Paused != ""
		}
	}
	return false
}
