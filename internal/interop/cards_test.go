//go:build linux || darwin

package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestCards: cards are there with the link, follow their changes, and lead requests to who offers a skill, between
// agents of all kinds. Base peers have none, and do not notice those of others.
func TestCards(t *testing.T) {
	full(t)
	names := []string{"InProcess", "Python", "Node", "Chromium"}
	for _, first := range names {
		for _, second := range append(names, "BaseAgent", "BaseSidecar", "PythonBase", "NodeBase") {
			t.Run(first+"-"+second, func(t *testing.T) {
				t.Parallel()
				st := newStage(t)
				ann := st.enter(t, kindNamed(first), "ann")
				ann.do(`card {"name":"Ann","version":"0.9"}`)
				bob := st.enter(t, kindNamed(second), "bob")
				ann.await(1, "+ bob")
				bob.await(1, "+ ann")
				if !bob.agent {
					ann.do("cards")
					ann.await(1, "bob has no card")
					ann.do(`card {"name":"Ann","version":"1.0"}`)
					ann.pings(bob, 1)
					bob.pings(ann, 1)
					if n := bob.says("card"); n != 0 {
						t.Errorf("bob (%s) has noticed %d times that there are cards", bob.name, n)
					}
					return
				}
				bob.showsCard("ann", `{"name":"Ann","version":"0.9"}`) // the one that came with the link
				for _, w := range [][2]*party{{ann, bob}, {bob, ann}} {
					w[0].showsItself(w[1])
				}
			})
		}
	}
}

// showsItself: a card arrives as it was given, with awkward characters, and goes again.
func (p *party) showsItself(to *party) {
	p.t.Helper()
	card := fmt.Sprintf(`{"name":"é \u2028 \"%s\"","version":"1.0","skills":[{"name":"%s-mirror","description":"returns it","type":"echo_request"}],"data":{"n":[1,{}]}}`,
		p.id, p.id)
	p.do("card %s", card)
	to.showsCard(p.id, card)
	bySkill := to.name != "Chromium" // a page makes no such requests
	if bySkill {
		to.do(`skill %s-mirror ["%s"]`, p.id, p.id)
		m := to.message(p.id+"-mirror answers: ", func(message) bool { return true })
		equalJSON(p.t, string(m.Payload), fmt.Sprintf("[%q]", p.id))
	}
	p.do("card null")
	to.await(1, p.id+" has no card")
	if bySkill {
		to.do("skill %s-mirror 7", p.id)
		to.find(1, "that nobody offers it", func(l string) bool {
			return strings.HasPrefix(l, "error: skill ") && strings.Contains(l, p.id+"-mirror")
		})
	}
}

// showsCard blocks until a party has shown this card of another one.
func (p *party) showsCard(of, want string) {
	p.t.Helper()
	p.find(1, "the card of "+of+": "+want, func(l string) bool {
		got, ok := strings.CutPrefix(l, of+" has card ")
		return ok && sameJSON(p.t, got, want)
	})
}

// sameJSON reports whether two texts, the second of which is JSON, mean the same.
func sameJSON(t *testing.T, got, want string) bool {
	t.Helper()
	var w any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatalf("%q: %v", want, err)
	}
	var g any
	if json.Unmarshal([]byte(got), &g) != nil {
		return false
	}
	gs, _ := json.Marshal(g)
	ws, _ := json.Marshal(w)
	return string(gs) == string(ws)
}

// TestOwnCard: an agent tells its card in its hello and by the command card, and no sidecar that knows none.
func TestOwnCard(t *testing.T) {
	for name := range scripts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sidecar, agent := fakeSidecarOf(t, name, scripts[name][1], "--card", `{"name":"A","data":{"é":1}}`)
			hello := sidecar.greetsWithCards()
			var line struct {
				Payload struct {
					Features []string
					Card     json.RawMessage
				}
			}
			if err := json.Unmarshal([]byte(hello), &line); err != nil || !slices.Contains(line.Payload.Features, "cards") {
				t.Errorf("its hello is %s, %v", hello, err)
			}
			equalJSON(t, string(line.Payload.Card), `{"name":"A","data":{"é":1}}`)
			agent.awaits(t, "+ bob")
			agent.does(t, "card {}", "card []", `card {"a":"`+strings.Repeat("x", 16<<10)+`"}`, "card "+nested(17), "card "+nested(16), "card null")
			equalJSON(t, sidecar.hears(`"card"`), `{"type":"card","payload":{"card":{}}}`)
			equalJSON(t, sidecar.hears(`"card"`), `{"type":"card","payload":{"card":`+nested(16)+`}}`)
			equalJSON(t, sidecar.hears(`"card"`), `{"type":"card","payload":{"card":null}}`)
			for _, code := range []string{"invalid_field", "too_large", "too_deep"} {
				agent.awaits(t, "error: "+code)
			}

			sidecar, agent = fakeSidecarOf(t, name, scripts[name][1], "--card", "{}")
			sidecar.greets()
			agent.awaits(t, "error: no_cards: ")
			agent.does(t, `card {"name":"B"}`, "peers")
			sidecar.hears(`"list_peers"`) // and nothing before it
			if _, ok := agent.lines.find(2, func(l string) bool { return strings.HasPrefix(l, "error: no_cards: ") }); !ok {
				t.Errorf("the agent printed %q", agent.lines.all())
			}
		})
	}
}

// Programs that give an agent cards which no line of text can, and print what it keeps, or its own kind of error.
const (
	nodeCards = `
import { Agent } from './node/agent.mjs'
const cyclic = {}
cyclic.a = [cyclic]
let deep = {}
for (let i = 0; i < 100_000; i++) deep = { a: deep }
const sparse = { name: 'A', a: NaN, b: undefined, c: new Date(0), d: new Map() }
const thrower = { get a() { throw 7 } }
const agent = new Agent(() => {})
const cards = [sparse, new Date(), { toJSON: () => [1] }, { toJSON: () => null }, { toJSON: () => undefined }, { toJSON: () => ({ b: 2 }) }, 'x', NaN,
  () => 1, { a: 1n }, cyclic, deep, thrower, { a: 'é'.repeat(8188) }, { a: 'é'.repeat(8189) }, undefined]
for (const card of cards) {
  for (const own of [() => new Agent(() => {}, false, card).card, () => (agent.setCard(card), agent.card)]) {
    try { console.log(JSON.stringify(own()).replace(/é+/, 'é')) } catch (e) { console.log(e.constructor.name, e.message.split(': ')[0]) }
  }
}
const { message } = (() => { try { agent.setCard(cyclic) } catch (e) { return e } })()
console.log(JSON.stringify(message.slice(0, 90)))
`
	pythonCards = `
import json, sys
sys.path.insert(0, "python")
from agent import Agent
cyclic, deep = {}, {}
cyclic["a"] = [cyclic]
for _ in range(100_000):
    deep = {"a": deep}
sparse = {"name": "A", "a": (1, ()), 1: None, None: True}
agent = Agent(lambda *_: None)
def replace(card):
    agent.set_card(card)
    return agent.card
cards = [sparse, {1, 2}, {"a": {1}}, [], (), "x", False, float("nan"), {"a": float("nan")}, {"a": float("inf")}, {float("nan"): 1}, {"a": b"b"},
         {(1, 2): 3}, {"a": 10 ** 5000}, cyclic, deep, {"a": "é" * 8188}, {"a": "é" * 8189}, {"a": chr(0xd800)}, None]
for card in cards:
    for own in (lambda: Agent(lambda *_: None, card=card).card, lambda: replace(card)):
        try:
            print(json.dumps(own(), separators=(",", ":")).replace(r"\u00e9" * 8188, "\u00e9"))
        except Exception as error:
            print(type(error).__name__, str(error).split(": ")[0])
try:
    agent.set_card({1})
except Exception as error:
    print(json.dumps(str(error)[:90]))
`
)

// TestOwnCardOfValues: what a program gives as a card is checked as it is in JSON, and is refused by an error of the agent's own.
func TestOwnCardOfValues(t *testing.T) {
	const invalid, large, deep = "MeshError invalid_field", "MeshError too_large", "MeshError too_deep"
	for name, x := range map[string]struct {
		args []string
		want []string // twice each: as the card at the start, and as a later one
		text string
	}{
		"Node": {[]string{"--input-type=module", "--eval", nodeCards}, []string{
			`{"name":"A","a":null,"c":"1970-01-01T00:00:00.000Z","d":{}}`, invalid, invalid, invalid, invalid, `{"b":2}`, invalid, invalid,
			invalid, invalid, invalid, "DEEP", invalid, `{"a":"é"}`, large, "null",
		}, `"invalid_field: the card cannot be said in JSON: TypeError: Converting circular structure`},
		"Python": {[]string{"-c", pythonCards}, []string{
			`{"name":"A","a":[1,[]],"1":null,"null":true}`, invalid, invalid, invalid, invalid, invalid, invalid, invalid, invalid, invalid, invalid, invalid,
			invalid, invalid, invalid, "DEEP", `{"a":"é"}`, large, `{"a":"\ud800"}`, "null",
		}, `"invalid_field: the card cannot be said in JSON: `},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kindNamed(name).check(t)
			cmd := exec.CommandContext(t.Context(), scripts[name][0], x.args...)
			cmd.Dir, cmd.Env = filepath.Join(root, "examples"), append(os.Environ(), "PYTHONIOENCODING=utf-8", "PYTHONDONTWRITEBYTECODE=1")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(out), "\r\n", "\n")), "\n")
			if len(lines) != 2*len(x.want)+1 {
				t.Fatalf("%d lines, want %d:\n%s", len(lines), 2*len(x.want)+1, out)
			}
			for i, got := range lines[:2*len(x.want)] {
				want := x.want[i/2]
				// What is far too deep may be found in the value or in its text.
				if ok := got == want || want == "DEEP" && (got == invalid || got == deep || got == large); !ok {
					t.Errorf("card %d, %d: %s, want %s", i/2, i%2, got, want)
				}
			}
			if text := lines[2*len(x.want)]; !strings.HasPrefix(text, x.text) {
				t.Errorf("the error is %s, want %s...", text, x.text)
			}
		})
	}
}

// nested returns an object of so many levels.
func nested(levels int) string {
	return strings.Repeat(`{"a":`, levels-1) + "{}" + strings.Repeat("}", levels-1)
}

// TestCardsOfPeers: an agent shows the cards of its peers, which end with the link, and skips lines with what is none.
func TestCardsOfPeers(t *testing.T) {
	for name := range scripts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sidecar, agent := fakeSidecarFor(t, name)
			sidecar.greetsWithCards()
			card := func(text string) string { return `{"type":"card","payload":{"peer_id":"bob","card":` + text + `}}` }
			longest := `{"a":"` + strings.Repeat("x", 16<<10-8) + `"}`
			sidecar.says(
				card(`{"name":"Bob"}`), card(`{"name":"Bob"}`), // behind a list of peers
				`{"type":"peer_connected","payload":{"peer_id":"bob","card":{"name":"Bob"}}}`, // the list was a step ahead
				`{"type":"peer_connected","payload":{"peer_id":"cho","card":{"v":[1]}}}`,
				card(longest), card(" "+longest[:len(longest)-2]+`x"} `), card(nested(16)), card(nested(17)), card("[]"),
				`{"type":"card","payload":{"card":{}}}`, `{"type":"card","payload":{"peer_id":"eve","card":{}}}`, // nobody's
				card("null"), card("{}"),
				card(`{"Name":"b","version":1.1,"later":7,"skills":[{"name":"x","description":{},"type":1},{"name":7},{"Name":"y"},{"name":""},null,5],"queries":["a",7]}`),
				card(`{"name":null,"description":[],"skills":"x","queries":{},"data":null}`),
				`{"type":"peer_disconnected","payload":{"peer_id":"bob"}}`, card(`{"late":1}`),
				`{"type":"peer_connected","payload":{"peer_id":"bob"}}`,
				`{"type":"error","payload":{"code":"internal","message":"that was all"}}`)
			agent.awaits(t, "error: internal: that was all")
			agent.does(t, "cards", "send cho {}")
			agent.awaits(t, "error: invalid_field")
			skipped := regexp.MustCompile("^(error: a line from the sidecar was skipped: [a-z_]+).*|^(error: invalid_field: a message).*")
			var got []string
			for _, l := range agent.lines.all() {
				got = append(got, strings.ReplaceAll(skipped.ReplaceAllString(l, "$1$2"), longest, "LONGEST"))
			}
			const skip = "error: a line from the sidecar was skipped: "
			want := []string{
				"+ bob", `bob has card {"name":"Bob"}`, "+ cho", `cho has card {"v":[1]}`, "bob has card LONGEST", skip + "too_large",
				"bob has card " + nested(16), skip + "too_deep", skip + "invalid_field", skip + "invalid_field", "bob has no card", "bob has card {}",
				`bob has card {"Name":"b","later":7,"skills":[{"name":"x"}],"queries":["a"]}`, `bob has card {"data":null}`,
				"- bob", "+ bob", "error: internal: that was all", `cho has card {"v":[1]}`, "bob has no card", "error: invalid_field: a message",
			}
			if !slices.Equal(got, want) {
				t.Errorf("the agent printed\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
			}
		})
	}
}

// TestSkill: of the peers with a skill the one with the fewest pending requests is asked, then another one if it is busy.
func TestSkill(t *testing.T) {
	for name := range scripts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sidecar, agent := fakeSidecarFor(t, name)
			sidecar.greetsWithCards()
			sidecar.says(
				`{"type":"card","payload":{"peer_id":"bob","card":{"skills":[7,{"name":7},{"name":"sum"}]}}}`,
				`{"type":"peer_connected","payload":{"peer_id":"cho","card":{"skills":[{"name":"sum","type":"add_query"}]}}}`,
				`{"type":"peer_connected","payload":{"peer_id":"dan","card":{"skills":"sum"}}}`)
			agent.awaits(t, "dan has card")
			// heard returns the next request, which goes to this peer, with its type.
			heard := func(peer, typ string) (id string) {
				t.Helper()
				var line struct {
					Payload struct {
						TargetPeer string `json:"target_peer"`
						Message    message
					}
				}
				text := sidecar.hears(`"send"`)
				if err := json.Unmarshal([]byte(text), &line); err != nil || line.Payload.TargetPeer != peer || line.Payload.Message.Type != typ {
					t.Fatalf("the agent wrote %s, %v; want a %s to %s", text, err, typ, peer)
				}
				return line.Payload.Message.RequestID
			}
			answer := func(peer, id, payload string) string {
				return fmt.Sprintf(`{"type":"message","payload":{"from_peer":%q,"message":{"type":"a_response","request_id":%q,"payload":%s}}}`, peer, id, payload)
			}
			const busy = `{"error":"too much","code":"busy"}`

			agent.does(t, `request bob {"type":"a_request"}`, `request bob {"type":"a_request"}`, `request cho {"type":"a_request"}`)
			for _, peer := range []string{"bob", "bob", "cho"} {
				heard(peer, "a_request")
			}
			agent.does(t, "skill sum [1]")
			sidecar.says(answer("cho", heard("cho", "add_query"), busy))
			sidecar.says(answer("bob", heard("bob", "sum_request"), `{"sum":1}`))
			agent.awaits(t, `sum answers: {"type":"a_response"`)
			agent.does(t, "skill sum [2]")
			sidecar.says(answer("cho", heard("cho", "add_query"), busy))
			sidecar.says(answer("bob", heard("bob", "sum_request"), busy))
			agent.awaits(t, `sum answers: {"type":"a_response","request_id":`)
			agent.does(t, "skill sum [3]")
			sidecar.says(answer("cho", heard("cho", "add_query"), `{"error":"no","code":"app"}`)) // which nobody else is asked about
			agent.does(t, "skill sing null")
			agent.awaits(t, "error: skill sing: no_skill: ")
			sidecar.says(`{"type":"pause","payload":{"peer_id":"cho"}}`, `{"type":"error","payload":{"code":"internal","message":"paused"}}`)
			agent.awaits(t, "error: internal: paused")
			agent.does(t, "skill sum [4]")
			heard("bob", "sum_request")
			var got []string
			for _, l := range agent.lines.all() {
				if m, ok := parse(l, "sum answers: "); ok {
					got = append(got, string(m.Payload))
				}
			}
			want := []string{`{"sum":1}`, busy, `{"error":"no","code":"app"}`}
			if !slices.Equal(got, want) {
				t.Errorf("the answers were %q, want %q", got, want)
			}
		})
	}
}
