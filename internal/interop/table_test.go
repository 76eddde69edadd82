//go:build linux || darwin

package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/interop/chromium"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// kinds are the programs of the table.
var kinds = []*kind{
	{name: "InProcess", agent: true, sidecar: true, streams: true, start: startGo(mesh.InProcess)},
	{name: "SelfExec", agent: true, sidecar: true, streams: true, start: startGo(mesh.SelfExec)},
	{name: "Binary", agent: true, sidecar: true, streams: true, start: startGo(mesh.Binary)},
	{name: "BaseAgent", sidecar: true, start: startBaseAgent(sidecarCommand)},
	{name: "BaseSidecar", start: startBaseAgent(baseSidecarCommand)},
	{name: "GoOnBase", agent: true, start: startGoOnBase},
	{name: "Python", agent: true, sidecar: true, streams: true, needs: program("python3"), start: startScript("python3", "python/agent.py")},
	{name: "Node", agent: true, sidecar: true, streams: true, needs: program("node"), start: startScript("node", "node/agent.mjs")},
	{name: "PythonBase", sidecar: true, needs: program("python3"), start: startScript("python3", "python/agent.py", "--base")},
	{name: "NodeBase", sidecar: true, needs: program("node"), start: startScript("node", "node/agent.mjs", "--base")},
	{name: "Chromium", agent: true, sidecar: true, needs: chromium.Find, start: startPage},
}

// TestTable lets every kind of program talk to every kind. The first is on the mesh before the second comes, so each
// two kinds meet in both orders. Without the full suite only the diagonal runs.
func TestTable(t *testing.T) {
	for _, first := range kinds {
		for _, second := range kinds {
			if diagonal := first == second && first.name != "Chromium"; !diagonal && !testutil.Full() {
				continue
			}
			t.Run(first.name+"-"+second.name, func(t *testing.T) {
				t.Parallel()
				c := &cell{t: t, stage: newStage(t)}
				c.a = c.enter(t, first, "ann")
				c.b = c.enter(t, second, "bob")
				c.play()
			})
		}
	}
	t.Run("others", full)
}

// A cell is two parties.
type cell struct {
	t *testing.T
	*stage
	a, b *party
}

func (c *cell) ways() [][2]*party { return [][2]*party{{c.a, c.b}, {c.b, c.a}} }

func (c *cell) play() {
	for _, w := range c.ways() {
		w[0].await(1, "+ "+w[1].id)
		w[0].do("peers")
		w[0].await(1, "peers: "+w[1].id)
	}
	for _, step := range []func(from, to *party){
		(*party).sendsInOrder, (*party).broadcasts, (*party).asks, (*party).asksInVain, (*party).sendsMuch, (*party).sendsTooMuch, (*party).opensStreams,
	} {
		for _, w := range c.ways() {
			step(w[0], w[1])
		}
	}
	for _, w := range c.ways() {
		if n := w[0].times("- " + w[1].id); n != 0 {
			c.t.Errorf("%s lost %s %d times", w[0].id, w[1].id, n)
		}
	}
	c.a.saysNothingTwice()
	c.b.saysNothingTwice()
	c.b.leave()
	c.a.find(1, "that the other has left", func(l string) bool { return l == "- "+c.b.id })
	c.a.leave()
}

// saysNothingTwice: all lines of a party in a cell differ, because all messages and requests do.
func (p *party) saysNothingTwice() {
	p.t.Helper()
	seen := make(map[string]bool)
	for _, l := range p.said().all() {
		if seen[l] {
			p.t.Errorf("%s (%s) said twice: %.200s", p.id, p.name, l)
		}
		seen[l] = true
	}
}

// sendsInOrder: messages arrive once and in order.
func (p *party) sendsInOrder(to *party) {
	p.t.Helper()
	const n = 20
	for i := range n {
		p.do(`send %s {"type":"count","payload":{"i":%d,"text":"é\u2028\r\n\"\\"}}`, to.id, i)
	}
	to.message(p.id+": ", func(m message) bool {
		return m.Type == "count" && strings.Contains(string(m.Payload), fmt.Sprintf(`"i":%d,`, n-1))
	})
	i := 0
	for _, l := range to.said().all() {
		m, ok := parse(l, p.id+": ")
		if !ok || m.Type != "count" {
			continue
		}
		equalJSON(p.t, string(m.Payload), fmt.Sprintf(`{"i":%d,"text":"é\u2028\r\n\"\\"}`, i))
		i++
	}
	if i != n {
		p.t.Errorf("%s got %d messages of %s, want %d", to.id, i, p.id, n)
	}
}

func (p *party) broadcasts(to *party) {
	p.t.Helper()
	p.do(`broadcast {"type":"status","payload":{"status":"idle"}}`)
	equalJSON(p.t, string(to.heard(p.id, "status").Payload), `{"status":"idle"}`)
}

// asks: responses find their requests, in whatever order they come.
func (p *party) asks(to *party) {
	p.t.Helper()
	const n = 5
	for i := range n {
		p.do(`request %s {"type":"echo_request","request_id":"%s-%d","payload":[%d]}`, to.id, p.id, i, i)
	}
	for i := range n {
		m := p.answered(to.id, fmt.Sprintf("%s-%d", p.id, i))
		if m.Type != "echo_response" {
			p.t.Errorf("the answer is a %s", m.Type)
		}
		equalJSON(p.t, string(m.Payload), fmt.Sprintf("[%d]", i))
	}
	p.do(`request %s {"type":"ping","request_id":"%s-ping"}`, to.id, p.id)
	if m := p.answered(to.id, p.id+"-ping"); m.Type != "pong" {
		p.t.Errorf("the answer to ping is a %s", m.Type)
	}
}

// asksInVain: a request without a handler gets a response all the same.
func (p *party) asksInVain(to *party) {
	p.t.Helper()
	p.do(`request %s {"type":"weather_request","request_id":"%s-vain"}`, to.id, p.id)
	m := p.answered(to.id, p.id+"-vain")
	if m.Type != "weather_response" || !bytes.Contains(m.Payload, []byte(`"error":`)) {
		p.t.Errorf("the answer is a %s with %s", m.Type, m.Payload)
	}
}

// limit is the longest message from one party to another.
func limit(from, to *party) int {
	switch {
	case !from.sidecar || !to.sidecar:
		return baseMaxRead
	case !to.agent:
		return baseMaxLine - 200 // minus the envelope of its line
	}
	return 1 << 20
}

// sendsMuch: the longest message that may pass does.
func (p *party) sendsMuch(to *party) {
	p.t.Helper()
	// minus the rest of the message, which base sidecars make longer
	text := strings.Repeat("0123456789abcdef", (limit(p, to)-256)/16)
	p.do(`send %s {"type":"much","payload":"%s"}`, to.id, text)
	if got := to.heard(p.id, "much"); string(got.Payload) != `"`+text+`"` {
		p.t.Errorf("of %d bytes %d arrived", len(text), len(got.Payload))
	}
}

// sendsTooMuch: a message that is too long for the receiver is an error for a sender that knows errors, and never
// holds up what follows.
func (p *party) sendsTooMuch(to *party) {
	p.t.Helper()
	if !p.sidecar {
		return // it does not know the limit
	}
	n := limit(p, to)
	if n == 1<<20 {
		return // the limits of the protocol itself are tested elsewhere
	}
	text := strings.Repeat("x", baseMaxLine)
	p.do(`send %s {"type":"too_much","payload":"%s"}`, to.id, text)
	if p.agent && n == baseMaxRead {
		p.find(1, "an error that names the limit", func(l string) bool {
			return strings.HasPrefix(l, "error: ") && strings.Contains(l, "65535")
		})
		p.do(`request %s {"type":"too_request","request_id":"%s-too","payload":"%s"}`, to.id, p.id, text)
		p.find(1, "that its request failed", func(l string) bool {
			return strings.HasPrefix(l, "error: request "+p.id+"-too") && strings.Contains(l, "65535")
		})
	}
	p.do(`request %s {"type":"ping","request_id":"%s-after"}`, to.id, p.id)
	p.answered(to.id, p.id+"-after")
	for _, l := range to.said().all() {
		if m, ok := parse(l, p.id+": "); ok && m.Type == "too_much" {
			p.t.Errorf("%s got %d bytes", to.id, len(l))
		}
	}
	if !p.agent && n == baseMaxRead {
		p.logs("65535")
	}
	if !to.agent && n != baseMaxRead {
		to.logs("message dropped")
	}
}

func equalJSON(t *testing.T, got, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Errorf("%q: %v", got, err)
		return
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatalf("%q: %v", want, err)
	}
	gs, _ := json.Marshal(g)
	ws, _ := json.Marshal(w)
	if !bytes.Equal(gs, ws) {
		t.Errorf("got %s, want %s", gs, ws)
	}
}

// TestDocumentedTable: the table in docs/interop.md has these parties and these limits.
func TestDocumentedTable(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join(root, "docs", "interop.md"))
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	want.WriteString("| |")
	for _, k := range kinds {
		want.WriteString(" " + k.name + " |")
	}
	want.WriteString("\n| --- |" + strings.Repeat(" --- |", len(kinds)) + "\n")
	for _, from := range kinds {
		want.WriteString("| **" + from.name + "** |")
		for _, to := range kinds {
			size := "64 KiB"
			if limit(&party{kind: from}, &party{kind: to}) == 1<<20 {
				size = "1 MiB"
			}
			want.WriteString(" " + size + " |")
		}
		want.WriteString("\n")
	}
	if !bytes.Contains(doc, []byte(want.String())) {
		t.Errorf("docs/interop.md does not have this table:\n%s", want.String())
	}
}
