//go:build !js

package rtc_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// dialAll registers a node with more peers than it dials at a time, none of which answers. offers has whom it
// sends an offer.
func dialAll(t *testing.T, pace time.Duration) (a *agent, peers []string, offers <-chan string) {
	t.Helper()
	h := newHub(t)
	sent := make(chan string, 1000)
	h.setFilter(func(m signal.Message) []signal.Message {
		if m.Type == signal.Offer {
			sent <- m.TargetID
		}
		return nil
	})
	a = start(t, h, "a", func(c *rtc.Config) { c.DialPace(pace) }).join()
	for i := range 3 * rtc.MaxDials {
		peers = append(peers, fmt.Sprintf("p%d", i))
	}
	a.Registered("a", signal.PeersPayload{Peers: peers})
	return a, peers, sent
}

func next(t *testing.T, offers <-chan string) string {
	t.Helper()
	return testutil.Take(t, "an offer", offers)
}

// A few peers are dialled at a time, and as soon as one is done with the next one, first of all one whose link
// was asked for.
func TestDialsInTurn(t *testing.T) {
	a, waiting, offers := dialAll(t, time.Hour)
	var dialled []string
	dial := func() (id string) {
		id = next(t, offers)
		dialled = append(dialled, id)
		waiting = slices.DeleteFunc(waiting, func(p string) bool { return p == id })
		return id
	}
	for range rtc.MaxDials {
		dial()
	}
	wanted := []string{waiting[len(waiting)-1], "unheard-of", waiting[0]}
	for _, id := range wanted {
		a.Connect(id)
	}
	for _, id := range wanted {
		a.Parked(id) // the loop has done what it was to do
		if n := len(offers); n > 0 {
			t.Fatalf("%d more peers were dialled, the first one %s", n, <-offers)
		}
		payload, err := json.Marshal(signal.ErrorPayload{Code: signal.CodePeerUnavailable, TargetID: dialled[0]})
		if err != nil {
			t.Fatal(err)
		}
		dialled = dialled[1:]
		a.Receive(signal.Message{Type: signal.ErrorType, Payload: payload})
		if got := dial(); got != id {
			t.Errorf("%s was dialled next, not %s", got, id)
		}
	}
}

// Peers that do not answer do not keep others from being dialled.
func TestDialsUnanswered(t *testing.T) {
	_, peers, offers := dialAll(t, 10*time.Millisecond)
	dialled := make(map[string]bool)
	for len(dialled) < len(peers) {
		dialled[next(t, offers)] = true
	}
}

// A link that is there makes room for the next dial.
func TestDialsAnswered(t *testing.T) {
	h := newHub(t)
	var all []*agent
	for i := range rtc.MaxDials + 3 {
		all = append(all, start(t, h, fmt.Sprintf("p%d", i), func(c *rtc.Config) { c.DialPace(time.Hour) }).join())
	}
	linked(t, all...)
}
