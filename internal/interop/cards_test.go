//go:build linux || darwin

package interop

import (
	"encoding/json"
	"fmt"
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
