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
					w[0].waitsNoLonger(w[1])
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
	to.find(1, "how long a request's sender waits", func(l string) bool {
		return strings.Contains(l, p.id+"-request-why-0") && strings.Contains(l, `"timeout_ms":`)
	})
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

// waitsNoLonger: the work on a request ends when its sender has waited as long as the request said.
func (p *party) waitsNoLonger(to *party) {
	p.t.Helper()
	if p.name == "InProcess" {
		return // such a request cannot be sent by hand
	}
	p.do(`send %s {"type":"sleep_request","request_id":"%s-short","timeout_ms":100,"payload":{"seconds":1000}}`, to.id, p.id)
	to.await(1, p.id+" gave up on "+p.id+"-short")
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
					ann.until("bob is paused", func() bool { return statsOf(t, m, "bob").Paused != "" })
				}
			}
			if i != n || final.Counted != n {
				t.Errorf("got %d chunks, and counted %d; want %d", i, final.Counted, n)
			}
		})
	}
}

// TestSlowPage: a page whose loop is slow makes a handler wait, and nothing is lost.
func TestSlowPage(t *testing.T) {
	full(t)
	const n = 100_000
	st := newStage(t)
	ann := st.enter(t, kindNamed("InProcess"), "ann")
	bob := st.enter(t, kindNamed("Chromium"), "bob")
	ann.await(1, "+ bob")
	bob.await(1, "+ ann")
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	eval := func(script string) {
		if err := bob.console.(*pageParty).page.Eval(ctx, script, nil); err != nil {
			t.Fatal(err)
		}
	}
	eval(fmt.Sprintf(`void (async () => {
		let n = 0;
		for await (const { i } of mesh.requestStream("ann", { type: "count_request", payload: { to: %d } })) {
			if (n++ === 0) await new Promise((goOn) => Object.assign(window, { goOn }));
			if (i !== n) return;
		}
		command('send ann {"type":"counted","payload":' + n + "}");
	})()`, n))
	m := ann.console.(*goParty).Mesh
	ann.until("it is paused", func() bool { return statsOf(t, m, "bob").HeldBack != "" })
	eval("goOn()")
	if got := string(ann.heard("bob", "counted").Payload); got != fmt.Sprint(n) {
		t.Errorf("the page got %s chunks, want %d", got, n)
	}
}

// loops are scripts that follow streamed replies, by the kind of party.
var loops = map[string]string{"Python": "../internal/interop/loops/loop.py", "Node": "../internal/interop/loops/loop.mjs"}

// TestLoop: an agent makes a peer whose chunks it does not take wait, and gives the request up when its loop is left, or
// when the peer goes on all the same.
func TestLoop(t *testing.T) {
	for name, script := range loops {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			chunk := func(size int) string {
				return `{"type":"message","payload":{"from_peer":"bob","message":{"type":"a_stream_chunk","request_id":"r1","payload":"` +
					strings.Repeat("x", size) + `"}}}`
			}
			sidecar, loop := fakeSidecarOf(t, name, script)
			sidecar.greets()
			sidecar.hears(`"a_request"`)
			sidecar.says(chunk(1))
			loop.awaits(t, "took 1")
			for range 19 {
				sidecar.says(chunk(64 << 10))
			}
			sidecar.hears(`{"type":"pause","payload":{"peer_id":"bob","ordered":true}}`)
			loop.does(t, "take 19")
			sidecar.hears(`{"type":"resume","payload":{"peer_id":"bob"}}`)
			loop.awaits(t, "took 20")
			loop.does(t, "leave")
			sidecar.hears(`{"type":"cancel","payload":{"target_peer":"bob","request_id":"r1"}}`)
			loop.awaits(t, "left")
			sidecar.says(chunk(1)) // comes late

			sidecar, loop = fakeSidecarOf(t, name, script)
			sidecar.greets()
			sidecar.hears(`"a_request"`)
			sidecar.says(chunk(1))
			loop.awaits(t, "took 1")
			for range 66 {
				sidecar.says(chunk(1 << 20))
			}
			sidecar.hears(`"pause"`)
			sidecar.hears(`"cancel"`)
			loop.does(t, "take 100")
			sidecar.hears(`"resume"`)
			loop.awaits(t, "failed: queue_full: ")
		})
	}
}

// TestPauseEndsWithLink: a pause of an agent for a link that has ended does not stop the next one.
func TestPauseEndsWithLink(t *testing.T) {
	for name, script := range loops {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sidecar, loop := fakeSidecarOf(t, name, script)
			sidecar.greets()
			sidecar.hears(`"a_request"`)
			const chunk = `{"type":"message","payload":{"from_peer":"bob","message":{"type":"a_stream_chunk","request_id":"r1","payload":"%s"}}}`
			sidecar.says(fmt.Sprintf(chunk, "x"))
			loop.awaits(t, "took 1")
			sidecar.says(fmt.Sprintf(chunk, strings.Repeat("x", 1<<20)))
			sidecar.hears(`"pause"`)
			sidecar.says(`{"type":"peer_disconnected","payload":{"peer_id":"bob"}}`, `{"type":"peer_connected","payload":{"peer_id":"bob"}}`)
			sidecar.hears(`"resume"`)
			loop.does(t, "take 100")
			loop.awaits(t, "failed: peer_lost: ")
		})
	}
}

// statsOf returns the numbers of the link to a peer.
func statsOf(t *testing.T, m *mesh.Mesh, peer string) mesh.PeerStats {
	t.Helper()
	stats, err := m.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stats.Peers {
		if s.Peer.ID == peer {
			return s
		}
	}
	return mesh.PeerStats{}
}
