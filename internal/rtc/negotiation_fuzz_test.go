//go:build !js

package rtc

import (
	"fmt"
	"slices"
	"testing"
)

// FuzzJudge has two honest ends follow the verdicts, while offers and answers between them are lost, doubled and
// delivered in any order, and the ends dial, restart ICE, give up and are restarted. An end applies nothing that is
// about another session, and once signaling delivers everything again the two have one link: each its only session,
// and both the same.
func FuzzJudge(f *testing.F) {
	const second = stepCount // of the messages under way
	for _, script := range [][]byte{
		{dialA, deliver, deliver},
		{dialA, dialB, deliver, deliver, deliver, deliver},                       // glare
		{dialA, deliver, repeatOne, deliver, deliver, deliver},                   // offer and answer come twice
		{dialA, deliver, deliver, restartA, deliver, loseOne, restartA, deliver}, // the answer to an ICE restart is lost
		{dialA, deliver, deliver, restartA, rebornB, deliver, deliver},           // a new process gets the restart
		{dialA, deliver, deliver, rebornB, dialB, deliver, deliver},
		{dialA, repeatOne, deliver, rebornA, dialA, second + deliver, deliver}, // an old offer comes after a new one
		{dialA, deliver, giveUpA, dialA, deliver, deliver, deliver},            // an answer to an offer given up
		{dialB, deliver, deliver, restartA, restartB, deliver, deliver, giveUpB},
	} {
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		p := newPairing(t)
		for _, step := range script[:min(len(script), 200)] {
			p.step(step)
		}
		for round := 0; !p.linked(); round++ {
			if round == 4 {
				t.Fatalf("no link: %+v and %+v", p.ends[0].cur, p.ends[1].cur)
			}
			p.recover()
		}
	})
}

// The steps of a script: what is done in the low bits, to which of the messages under way in the others.
const (
	deliver = iota
	loseOne
	repeatOne // deliver it, and once more later
	keepOne   // deliver it after all others
	dialA
	dialB
	restartA // ICE
	restartB
	rebornA // a new process
	rebornB
	giveUpA // without the other's knowledge
	giveUpB
	resendA
	resendB
	stepCount
)

// pairing is two ends and what signaling has under way between them.
type pairing struct {
	t        *testing.T
	ends     [2]*judged
	underWay []relayed
	ids      int // given out so far, to sessions and to descriptions
}

type relayed struct {
	to     int // index of the end
	answer bool
	d      description
}

// judged is an end that does what the verdicts say.
type judged struct {
	p    *pairing
	at   int
	self string
	cur  *negotiation
	last relayed // its last description
	open bool    // an offer of its own has no answer yet
}

func newPairing(t *testing.T) *pairing {
	p := &pairing{t: t}
	for i, id := range []string{"a", "b"} {
		p.ends[i] = &judged{p: p, at: i, self: id}
	}
	return p
}

func (p *pairing) id() string {
	p.ids++
	return fmt.Sprint(p.ids)
}

// linked reports whether the ends have one link, and nothing is open.
func (p *pairing) linked() bool {
	a, b := p.ends[0], p.ends[1]
	return a.joins(b) && b.joins(a) && a.cur.offerer != b.cur.offerer && !a.open && !b.open
}

// joins reports whether an end's session is with the present one of the other.
func (e *judged) joins(other *judged) bool {
	return e.cur != nil && other.cur != nil && e.cur.described() && e.cur.remote.session == other.cur.session
}

func (p *pairing) step(s byte) {
	kind, which := int(s)%stepCount, int(s)/stepCount
	if kind >= dialA {
		p.ends[kind%2].do(kind &^ 1)
		return
	}
	if len(p.underWay) == 0 {
		return
	}
	i := which % len(p.underWay)
	m := p.underWay[i]
	p.underWay = slices.Delete(p.underWay, i, i+1)
	switch kind {
	case deliver:
		p.ends[m.to].receive(m)
	case repeatOne:
		p.underWay = append(p.underWay, m)
		p.ends[m.to].receive(m)
	case keepOne:
		p.underWay = append(p.underWay, m)
	}
}

// recover is what time brings about: all that is under way arrives in order, what is unanswered is sent again, and ends
// whose session comes to nothing give it up and dial.
func (p *pairing) recover() {
	p.settle()
	for _, e := range p.ends {
		if e.open {
			e.do(resendA)
		}
	}
	p.settle()
	for i, e := range p.ends {
		if e.cur != nil && !e.joins(p.ends[1-i]) {
			e.drop()
		}
	}
	for _, e := range p.ends {
		e.do(dialA) // both at once: glare
	}
	p.settle()
}

// settle delivers all that is under way.
func (p *pairing) settle() {
	for n := 0; len(p.underWay) > 0; n++ {
		if n == 10_000 {
			p.t.Fatalf("the ends do not fall silent; under way: %+v", p.underWay)
		}
		p.step(deliver)
	}
}

func (e *judged) do(kind int) {
	switch kind {
	case dialA:
		if e.cur == nil {
			e.cur = &negotiation{session: e.p.id(), offerer: true}
			e.send(false, "")
		}
	case restartA:
		if e.cur != nil && e.cur.offerer && e.cur.answered && e.cur.remote.restart && !e.open {
			e.send(false, "")
		}
	case rebornA, giveUpA:
		e.drop()
	case resendA:
		if e.cur != nil {
			e.p.underWay = append(e.p.underWay, e.last)
		}
	}
}

func (e *judged) drop() { e.cur, e.open = nil, false }

// send makes a new description of the current session and sends it.
func (e *judged) send(answer bool, answers string) {
	d := description{sdp: e.p.id(), session: e.cur.session, answers: answers, stream: true, restart: true, drain: true}
	e.last = relayed{to: 1 - e.at, answer: answer, d: d}
	e.open = !answer
	e.p.underWay = append(e.p.underWay, e.last)
}

func (e *judged) receive(m relayed) {
	if m.answer {
		e.answered(m.d)
		return
	}
	other := e.p.ends[1-e.at].self
	switch v := judgeOffer(e.self, other, e.cur, m.d); v {
	case repeat:
		if e.last.answer {
			e.do(resendA)
		}
	case insist:
		e.do(resendA)
	case accept:
		e.cur = &negotiation{session: e.p.id(), remote: m.d}
		e.send(true, m.d.session)
	case apply:
		if e.cur.offerer || e.cur.remote.session != m.d.session {
			e.p.t.Fatalf("%s applies %+v to %+v", e.self, m.d, e.cur)
		}
		e.cur.remote = m.d
		e.send(true, m.d.session)
	case ignore:
	default:
		e.p.t.Fatalf("verdict %s about an offer of an extended peer", v)
	}
}

func (e *judged) answered(a description) {
	switch v := judgeAnswer(e.cur, e.open, a); v {
	case apply:
		if !e.open || a.answers != e.cur.session || e.cur.answered && a.session != e.cur.remote.session {
			e.p.t.Fatalf("%s applies the answer %+v to %+v", e.self, a, e.cur)
		}
		e.cur.answered, e.cur.remote, e.open = true, a, false
	case unknown:
		e.drop()
	case ignore:
	default:
		e.p.t.Fatalf("verdict %s about an answer", v)
	}
}
