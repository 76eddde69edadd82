//go:build linux

package main

import (
	"encoding/json"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil/netpath"
)

// Only the end that has made a link's first offer restarts ICE. The other end asks for it. So restarts that both ends want at
// once are an offer and an ask that are under way at the same time. One that is cut in the middle has its offer or its answer
// lost, or the path goes again before ICE has found it.

// An outage is a time in which a path comes and goes, by what happens to its restarts.
type outage string

const (
	plain         outage = "plain"
	crossing      outage = "crossing"       // an offer and an ask are under way at once: the first one is held up
	offerLost     outage = "offer lost"     // signaling goes down when the offer of a restart comes, which is lost
	answerLost    outage = "answer lost"    // the same with the answer
	signalingDown outage = "signaling down" // it is down from the cut on, until both ends wait for it
)

// mostRedialled is how long after signaling is back both ends of a link without a path use it.
const mostRedialled = 2 * time.Second

func flapping(r *run) {
	path, s, room := r.room(whole)
	a, b := r.between(room)
	m := &middleman{}
	room.Watch(m.see)
	load := r.stream(a, b)
	kinds := pick(r, []outage{plain, crossing, offerLost, answerLost, signalingDown}, []outage{crossing, answerLost})
	times, broken := pick(r, 3, 1), 0
	for range times {
		for _, kind := range kinds {
			r.pause(r.span(200*time.Millisecond, time.Second))
			broken += flap(r, kind, path, s, m, load)
		}
	}
	messages := load.end()
	m.mu.Lock()
	defer m.mu.Unlock()
	r.check(m.crossed == times, "%d of %d times both ends wanted a restart at once", m.crossed, times)
	r.check(broken > 0, "no restart was cut off by the path")
	r.say("%d outages: restarts offered %d times and asked for %d times, %d times both at once; %d lost half way, with signaling; the path cut off %d more; %d messages",
		times*len(kinds), m.offers, m.asks, m.crossed, m.lost, broken, messages)
}

// flap has the path come and go, and returns how often it went before a restart had come to its end.
func flap(r *run, kind outage, path *netpath.Path, s *server, m *middleman, load *stream) (broken int) {
	path.Set(nothing)
	cut := time.Now().Add(time.Second) // what was on its way has arrived by then
	came, most := m.await(kind), mostBack
	switch kind {
	case plain:
		r.pause(r.span(4*time.Second, 8*time.Second))
	case signalingDown:
		s.down()
		r.pause(r.span(5*time.Second, 8*time.Second))
		s.up()
		r.await("an offer and an ask", came)
	case crossing:
		r.await("an offer and an ask", came)
	case offerLost, answerLost:
		r.await("a restart", came)
		s.down()
		most += mostRedialled
	}
	for back := 2 + r.random.IntN(4); back > 0; back-- {
		path.Set(whole)
		r.pause(r.span(20*time.Millisecond, 400*time.Millisecond))
		path.Set(nothing)
		if !load.flowsSince(cut) {
			broken++
		}
		r.pause(r.span(100*time.Millisecond, 1500*time.Millisecond))
		if back == 2 && s.sig == nil {
			s.up()
		}
	}
	path.Set(whole)
	load.flowsAgain(string(kind), most)
	return broken
}

// span returns a time between two others.
func (r *run) span(least, most time.Duration) time.Duration {
	return least + time.Duration(r.random.Int64N(int64(most-least)))
}

// A middleman sees the restarts that two ends signal to each other, and holds up or loses some of them.
type middleman struct {
	mu                          sync.Mutex
	offers, asks, crossed, lost int

	kind           outage
	came           chan struct{} // closed when what it is about has come
	offered, asked bool          // in this outage
	held           []func()      // until there is one of both
}

// await has what an outage is about happen to the next restart. The channel is closed then.
func (m *middleman) await(kind outage) (came <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kind, m.came, m.offered, m.asked = kind, make(chan struct{}), false, false
	return m.came
}

// see passes on a message of an agent, sooner or later, or never.
func (m *middleman) see(msg signal.Message, pass func()) {
	for _, f := range m.sort(msg, pass) {
		f()
	}
}

// sort returns what is to be passed on now.
func (m *middleman) sort(msg signal.Message, pass func()) []func() {
	now := []func(){pass}
	var d signal.Description
	if msg.Type != signal.Offer && msg.Type != signal.Answer || json.Unmarshal(msg.Payload, &d) != nil {
		return now
	}
	offer, ask := msg.Type == signal.Offer && d.Number > 0, d.Restart
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case ask:
		m.asks++
		m.asked = true
	case offer:
		m.offers++
		m.offered = true
	}
	switch restart := d.Number > 0 && !ask; {
	case m.kind == crossing && (offer || ask):
		m.held = append(m.held, pass)
		if !m.offered || !m.asked {
			return nil
		}
		now, m.held = m.held, nil
		m.crossed++
	case m.kind == signalingDown && m.asked && m.offered:
	case restart && (m.kind == offerLost && offer || m.kind == answerLost && !offer):
		m.lost++
		now = nil
	default:
		return now
	}
	m.kind = plain
	close(m.came)
	return now
}
