package mesh

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// A Card is what an agent says about itself to its peers: Config.Card, and Peer.Card of the
// others. It is a claim: nobody but the agent vouches for it. As JSON it is at most 16 KiB
// long and 16 levels deep, with 256 skills (docs/protocol.md, "Cards").
type Card struct {
	Name        string  `json:"name,omitempty"` // for people
	Version     string  `json:"version,omitempty"`
	Description string  `json:"description,omitempty"`
	Skills      []Skill `json:"skills,omitempty"` // what it can be asked for: see BySkill
	// Data is whatever else peers are to know: any JSON.
	Data json.RawMessage `json:"data,omitempty"`
	// Queries are the types of this library's own requests that the agent answers, such as
	// that of package meshdebug. The library fills it in.
	Queries []string `json:"queries,omitempty"`
}

// A Skill is something that an agent does for its peers.
type Skill struct {
	Name        string `json:"name"` // by which BySkill finds it
	Description string `json:"description,omitempty"`
	// Type is that of the requests that ask for it; by default the name and "_request".
	Type string `json:"type,omitempty"`
}

// Skill returns a skill by its name, and whether there is one. A nil Card has none.
func (c *Card) Skill(name string) (s Skill, ok bool) {
	if c == nil {
		return Skill{}, false
	}
	i := slices.IndexFunc(c.Skills, func(s Skill) bool { return s.Name == name })
	if i < 0 {
		return Skill{}, false
	}
	s = c.Skills[i]
	if s.Type == "" {
		s.Type = s.Name + "_request"
	}
	return s, true
}

// maxSkills is how many skills a card has at most, and how many queries.
const maxSkills = 256

var (
	errUnnamedSkill = errors.New("it has no name")
	errSkillType    = errors.New("its type is not that of a request")
	errManySkills   = fmt.Errorf("over %d skills", maxSkills)
)

// askable reports whether the skill can be asked for.
func (s Skill) askable() bool { return s.Name != "" && wire.WantsResponse(cmp.Or(s.Type, "x"), "id") }

// encode returns the card as peers get it, with the queries that the agent answers; nil if
// there is nothing to say.
func (c *Card) encode(queries []string) ([]byte, error) {
	if c == nil && len(queries) == 0 {
		return nil, nil
	}
	var shown Card
	if c != nil {
		shown = *c
	}
	if len(shown.Skills) > maxSkills {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, errManySkills)
	}
	for i, s := range shown.Skills {
		switch {
		case s.Name == "":
			return nil, fmt.Errorf("%w: skill %d: %w", ErrInvalid, i, errUnnamedSkill)
		case !s.askable():
			return nil, fmt.Errorf("%w: skill %q: %w", ErrInvalid, logs.Cut(s.Name), errSkillType)
		}
	}
	shown.Queries = queries
	text, err := json.Marshal(shown)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := wire.CheckCard(text); err != nil {
		return nil, codecError(err)
	}
	return text, nil
}

func (c *Card) clone() *Card {
	if c == nil {
		return nil
	}
	own := *c
	own.Skills, own.Data = slices.Clone(c.Skills), bytes.Clone(c.Data)
	return &own
}

// decodeCard returns the card that a peer has shown, a JSON object. What is not as it should
// be is left out: a peer of another version, or in another language, may know it differently.
func decodeCard(text []byte) *Card {
	if text == nil {
		return nil
	}
	fields := members(text)
	c := &Card{
		Name: textIn(fields["name"]), Version: textIn(fields["version"]), Description: textIn(fields["description"]),
		Data: bytes.Clone(fields["data"]),
	}
	for _, raw := range elements(fields["skills"]) {
		fields := members(raw)
		s := Skill{Name: textIn(fields["name"]), Description: textIn(fields["description"]), Type: textIn(fields["type"])}
		if s.Name != "" {
			c.Skills = append(c.Skills, s)
		}
	}
	for _, raw := range elements(fields["queries"]) {
		if typ := textIn(raw); typ != "" {
			c.Queries = append(c.Queries, typ)
		}
	}
	return c
}

// members returns those of an object, whose names count exactly; nil for anything else.
func members(raw json.RawMessage) (fields map[string]json.RawMessage) {
	_ = json.Unmarshal(raw, &fields)
	return fields
}

// elements returns those of an array, as many as a card may have; nil for anything else.
func elements(raw json.RawMessage) (list []json.RawMessage) {
	_ = json.Unmarshal(raw, &list)
	return list[:min(len(list), maxSkills)]
}

// textIn returns a string, "" for anything else.
func textIn(raw json.RawMessage) (s string) {
	_ = json.Unmarshal(raw, &s)
	return s
}

// An ownCard is what this agent says about itself.
type ownCard struct {
	mu   sync.Mutex // held while the sidecar is told: of one change after the other
	card *Card
	text []byte // with the queries; nil if there is nothing to say
}

// SetCard replaces Config.Card; nil takes it back. Peers learn of it at once, new ones
// when they are linked. It does not block.
//
// Errors wrap ErrInvalid or ErrTooLarge for a card that cannot be sent, which changes
// nothing, errors.ErrUnsupported if the sidecar is one of a version that cannot pass it
// on, or the reason for which the mesh ended.
func (m *Mesh) SetCard(card *Card) error {
	m.own.mu.Lock()
	defer m.own.mu.Unlock()
	if m.ctx.Err() != nil {
		return m.closedError()
	}
	text, err := card.encode(m.queries())
	if err != nil {
		return fmt.Errorf("mesh: card: %w", inner{err})
	}
	m.own.card, m.own.text = card.clone(), text
	return m.tellCard(m.ipc())
}

// cardText returns what the next sidecar is told.
func (m *Mesh) cardText() []byte {
	m.own.mu.Lock()
	defer m.own.mu.Unlock()
	return m.own.text
}

// tellCard tells a sidecar of the card, if it is not the one that it knows. m.own.mu is
// held.
func (m *Mesh) tellCard(c *ipc) error {
	switch {
	case c == nil || !c.isReady() || bytes.Equal(c.card, m.own.text):
		return nil // the hello to the next one says it, or retellCard
	case !c.has(wire.FeatureCards):
		return errNoCards
	}
	c.card = m.own.text
	// An error means that the link is gone, and the next one begins with the card.
	_ = c.writeNow(func(b []byte) []byte { return wire.AppendCardCommand(b, c.card) })
	return nil
}

// retellCard tells a new sidecar of the card if that has changed since the hello.
func (m *Mesh) retellCard(c *ipc) {
	m.own.mu.Lock()
	defer m.own.mu.Unlock()
	err := m.tellCard(c)
	if err == nil && m.own.card != nil && !c.has(wire.FeatureCards) {
		err = errNoCards
	}
	if err != nil {
		m.report(err)
	}
}

var errNoCards = fmt.Errorf("mesh: card: %w by the sidecar", errors.ErrUnsupported)

// queryPrefix is what the types of this library's own requests begin with.
const queryPrefix = "mesh_"

// queries returns the types of this library's own requests that have a handler.
func (m *Mesh) queries() (types []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for typ := range m.byType {
		if strings.HasPrefix(typ, queryPrefix) {
			types = append(types, typ)
		}
	}
	slices.Sort(types)
	return types
}

// queryHandled tells peers that there is a handler for another of this library's own
// requests.
func (m *Mesh) queryHandled() {
	m.own.mu.Lock()
	defer m.own.mu.Unlock()
	text, err := m.own.card.encode(m.queries())
	if err != nil { // it leaves too little room
		m.report(fmt.Errorf("mesh: card: %w", inner{err}))
		return
	}
	m.own.text = text
	if err := m.tellCard(m.ipc()); err != nil {
		m.log.Debug().Err(err).Msg("peers do not learn of a handler")
	}
}

// onCard handles that a peer has another card.
func (c *ipc) onCard(peer string, payload []byte) error {
	text, err := wire.DecodeCard(payload)
	if err != nil {
		return err
	}
	m, card := c.m, decodeCard(text)
	m.mu.Lock()
	p := m.peers[peer]
	if p == nil || !p.live {
		m.mu.Unlock()
		return nil
	}
	p.card = card
	public := p.public()
	m.mu.Unlock()
	m.observe(m.cfg.Observer.CardChanged != nil, func(o *Observer) { o.CardChanged(public) })
	return nil
}
