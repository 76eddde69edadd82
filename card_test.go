package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// cardAt returns the card of a peer as an agent knows it.
func cardAt(m *Mesh, peer string) *Card {
	p, _ := m.livePeer(peer)
	return p.Card
}

// testCards: cards are there with the link, and follow their changes, a restart of the sidecar too.
func testCards(t *testing.T, p *pair) {
	want := &Card{
		Name: "Bob \u2028", Version: "1.2", Description: "line\nline", Data: json.RawMessage(`{"a":[[[1]]]}`),
		Skills: []Skill{{Name: "shout", Description: "in capitals", Type: "cards_shout_request"}, {Name: "cards_sing"}},
	}
	shout := Typed(func(_ context.Context, _ Peer, text string) (string, error) { return strings.ToUpper(text), nil })
	if err := p.bob.Handle("cards_shout_request", shout); err != nil {
		t.Fatal(err)
	}
	seen := func(what string, at, of *agent, want *Card) {
		t.Helper()
		testutil.Eventually(t, what, func() bool { return reflect.DeepEqual(cardAt(at.Mesh, of.id), want) })
	}
	if err := p.bob.SetCard(want); err != nil {
		t.Fatal(err)
	}
	seen("bob's card", p.alice, p.bob, want)
	if got, err := Call[string](bounded(t), p.alice.Mesh, BySkill("shout"), "", "hi"); got != "HI" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	erin := &Card{Name: "Erin", Skills: []Skill{{Name: "cards_whisper"}}}
	x := p.extra(t, "erin", func(cfg *Config) { cfg.Card = erin })
	seen("bob's card, for a new peer", x, p.bob, want)
	for _, a := range []*agent{p.alice, p.bob} {
		for _, e := range a.events.All() {
			if e.ID == "erin" && e.Connected && !reflect.DeepEqual(e.Card, erin) {
				t.Errorf("%s: erin came with the card %+v", a.id, e.Card)
			}
		}
	}
	if err := x.SetCard(nil); err != nil {
		t.Fatal(err)
	}
	seen("erin without a card", p.alice, x, nil)
	if _, err := Call[string](bounded(t), p.alice.Mesh, BySkill("cards_whisper"), "", "hi"); !errors.Is(err, ErrNoSkill) {
		t.Errorf("a skill that was taken back: %v", err)
	}
	if err := p.bob.SetCard(nil); err != nil {
		t.Fatal(err)
	}
	seen("bob without a card", p.alice, p.bob, nil)
}

// A new sidecar begins with the card that the last one had, and with a change from before it was there.
func TestCardAfterRestart(t *testing.T) {
	for _, mode := range streetModes() {
		t.Run(mode.String(), func(t *testing.T) {
			s := newStage(t, "")
			alice := s.start(t, InProcess, "alice")
			bob := s.startAs(t, mode, "bob", Identity{}, func(cfg *Config) { cfg.Card = &Card{Name: "first"} })
			for _, name := range []string{"first", "second"} {
				if err := alice.WaitPeer(bounded(t), "bob"); err != nil {
					t.Fatal(err)
				}
				testutil.Eventually(t, "the card "+name, func() bool { c := cardAt(alice.Mesh, "bob"); return c != nil && c.Name == name })
				came := alice.events.Len()
				bob.sever(t)
				if name == "first" {
					if err := bob.SetCard(&Card{Name: "second"}); err != nil {
						t.Fatal(err)
					}
				}
				alice.events.Wait(t, "bob's new sidecar", func(l []PeerEvent) bool { return len(l) >= came+2 && l[len(l)-1].Connected })
			}
			testutil.Eventually(t, "the card", func() bool { c := cardAt(alice.Mesh, "bob"); return c != nil && c.Name == "second" })
		})
	}
}

// What cannot be a card is refused, and changes nothing.
func TestBadCards(t *testing.T) {
	deep := json.RawMessage(strings.Repeat("[", wire.MaxCardDepth) + strings.Repeat("]", wire.MaxCardDepth))
	tests := map[string]struct {
		card *Card
		want error
	}{
		"a skill without a name": {&Card{Skills: []Skill{{Name: "a"}, {Type: "b_request"}}}, ErrInvalid},
		"a skill of responses":   {&Card{Skills: []Skill{{Name: "a", Type: "a_response"}}}, ErrInvalid},
		"too many skills":        {&Card{Skills: slices.Repeat([]Skill{{Name: "a"}}, maxSkills+1)}, ErrInvalid},
		"data that is no JSON":   {&Card{Data: json.RawMessage("{")}, ErrInvalid},
		"too long":               {&Card{Description: strings.Repeat("x", wire.MaxCard)}, ErrTooLarge},
		"too deep":               {&Card{Data: deep}, ErrTooLarge},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bad := (*ConfigError)(nil)
			if _, err := New(t.Context(), Config{Card: tt.card}); !errors.As(err, &bad) || bad.Field != "Card" || !errors.Is(err, tt.want) {
				t.Errorf("New: %v", err)
			}
			m, _ := newFakeAgent(t, Config{}, true)
			if err := m.SetCard(tt.card); !errors.Is(err, tt.want) {
				t.Errorf("SetCard: %v", err)
			}
		})
	}
}

// What the sidecar is told, and what it tells.
func TestCardLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changed testutil.Record[string]
		var reports testutil.Record[error]
		m, f := newFakeAgent(t, Config{
			Card:     &Card{Name: "A"},
			Observer: Observer{CardChanged: func(p Peer) { changed.Add(fmt.Sprintf("%s %+v", p.ID, p.Card)) }},
			OnError:  reports.Add,
		}, true)
		told := func(want any) {
			t.Helper()
			line := f.heard()
			payload, _ := line["payload"].(map[string]any)
			if line["type"] != "card" || !reflect.DeepEqual(payload["card"], want) {
				t.Errorf("the agent wrote %v, want the card %v", line, want)
			}
		}
		if err := m.SetCard(&Card{Name: "A"}); err != nil || len(f.lines) > 0 {
			t.Errorf("the same card again: %v", err)
		}
		if err := m.SetCard(&Card{Name: "B"}); err != nil {
			t.Error(err)
		}
		told(map[string]any{"name": "B"})
		if err := m.Handle("mesh_x_query", func(context.Context, *Message) (any, error) { return nil, nil }); err != nil {
			t.Error(err)
		}
		told(map[string]any{"name": "B", "queries": []any{"mesh_x_query"}})
		if err := m.SetCard(nil); err != nil {
			t.Error(err)
		}
		told(map[string]any{"queries": []any{"mesh_x_query"}})

		f.say(`{"type":"peer_connected","payload":{"peer_id":"bob","card":{"name":"Bob","later":1}}}`)
		f.say(`{"type":"card","payload":{"peer_id":"nobody","card":{"name":"x"}}}`)
		synctest.Wait()
		if c := cardAt(m, "bob"); c == nil || c.Name != "Bob" {
			t.Errorf("bob's card: %+v", c)
		}
		f.say(`{"type":"card","payload":{"peer_id":"bob","card":{"name":7,"version":"1","NAME":"x","skills":[5,{"name":8},{"name":"s","type":9}],"queries":"q"}}}`)
		f.say(`{"type":"card","payload":{"peer_id":"bob","card":{"skills":[{"name":"a"}]}}}`)
		f.say(`{"type":"card","payload":{"peer_id":"bob","card":null}}`)
		synctest.Wait()
		want := []string{"bob &{Name: Version:1 Description: Skills:[{Name:s Description: Type:}] Data:[] Queries:[]}", "bob &{Name: Version: Description: Skills:[{Name:a Description: Type:}] Data:[] Queries:[]}", "bob <nil>"}
		if got := changed.All(); !reflect.DeepEqual(got, want) {
			t.Errorf("told of %q", got)
		}
		if l := reports.All(); len(l) > 0 {
			t.Errorf("reported: %v", l)
		}
		if n := len(f.lines); n > 0 {
			t.Errorf("%d more lines", n)
		}
	})
}

// A sidecar that knows no cards cannot pass one on, and that is said.
func TestCardWithBaseSidecar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reports testutil.Record[error]
		m, _ := newFakeAgent(t, Config{Card: &Card{Name: "A"}, OnError: reports.Add}, false)
		synctest.Wait()
		if l := reports.All(); len(l) != 1 || !errors.Is(l[0], errors.ErrUnsupported) {
			t.Errorf("reported: %v", l)
		}
		if err := m.SetCard(&Card{Name: "B"}); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("SetCard: %v", err)
		}
		if err := m.SetCard(nil); !errors.Is(err, errors.ErrUnsupported) { // the hello said A
			t.Errorf("SetCard: %v", err)
		}
	})
}

// A card within its limits hides no peer from an agent whose messages may be neither long nor deep.
func TestCardOfShallowAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newFakeAgent(t, Config{Limits: Limits{MaxDepth: 1, MaxMessage: minMaxMessage}}, true)
		deep := strings.Repeat(`{"a":`, wire.MaxCardDepth-2) + "{}" + strings.Repeat("}", wire.MaxCardDepth-2)
		card := `{"data":` + deep + `,"description":"` + strings.Repeat("x", wire.MaxCard-1000) + `"}`
		f.say(`{"type":"peer_connected","payload":{"peer_id":"bob","card":` + card + `}}`)
		f.say(from("bob", `{"type":"x","payload":[]}`)) // which is too deep, as ever
		synctest.Wait()
		if c := cardAt(m, "bob"); c == nil || len(c.Description) != wire.MaxCard-1000 {
			t.Errorf("bob's card: %v", c)
		}
	})
}

// However many skills a peer claims, they take about as much memory as its card may have bytes.
func TestManySkillsOfPeer(t *testing.T) {
	text := []byte(`{"skills":[` + strings.Repeat(`{"name":"a"},`, 1000) + `{}],"queries":[` + strings.Repeat(`"q",`, 500) + `""]}`)
	if c := decodeCard(text); len(c.Skills) != maxSkills || len(c.Queries) != maxSkills {
		t.Errorf("%d skills, %d queries", len(c.Skills), len(c.Queries))
	}
}
