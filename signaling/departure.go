package signaling

import (
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// Clients that asked for it are told of a peer whose process has probably ended. A client that is alive and cut off
// must not be among those: so it counts only if the server had heard it a moment before its connection was closed from the
// other end, if it does not come back, and if it is not one of several, as when a proxy is restarted. A client that comes and
// goes again and again is one.
const (
	// watchPing is the time between two pings of a client that asked.
	watchPing = 5 * time.Second
	// heardWithin is how long before its end a connection must have been heard: a ping interval, and what a pong takes.
	heardWithin = 7 * time.Second
	// returnWithin is how long a client has to come back, and the time before and after a departure in which others
	// are counted.
	returnWithin = 3 * time.Second
	// maxDepartures is how many connections may end in that time for them to be told of.
	maxDepartures = 3
)

// A departure is the end of a connection by its other end.
type departure struct {
	id string
	at time.Time
}

// departed notes that the other end has closed the connection of c, which was heard last at a time. It is called
// before leave.
func (h *hub) departed(c *client, heard time.Time) {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.departures = append(slices.DeleteFunc(h.departures, func(d departure) bool { return d.id == c.id }), departure{c.id, now})
	if len(h.departures) > maxDepartures+1 {
		h.departures = h.departures[1:]
	}
	if !c.watches || h.members[c.id] != c || h.newcomers[c.id] != nil || now.Sub(heard) > heardWithin {
		return
	}
	h.gone[c.id] = c
	h.telling.Go(func() {
		select {
		case <-time.After(returnWithin):
			h.tellLeft(c, now)
		case <-h.over:
		}
	})
}

// tellLeft tells of a departure at a time, unless it has turned out to be another thing.
func (h *hub) tellLeft(c *client, at time.Time) {
	watchers := h.watchers(c, at)
	if watchers == nil {
		return
	}
	h.report(zerolog.InfoLevel, c).Int("told", len(watchers)).Msg("peer has left")
	b := h.encode(signal.Left, signal.LeftPayload{PeerID: c.id, Ago: time.Since(at).Milliseconds()})
	for _, to := range watchers {
		if b != nil {
			to.out.PushFrom("", b) // as an error: what has no room is not told
		}
	}
}

// watchers returns who is to be told of a departure.
func (h *hub) watchers(c *client, at time.Time) (list []*client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone[c.id] != c {
		return nil // it has come back
	}
	delete(h.gone, c.id)
	if len(h.departures) > maxDepartures && at.Sub(h.departures[0].at) <= returnWithin {
		return nil
	}
	for _, to := range h.members {
		if to.watches && to.registered {
			list = append(list, to)
		}
	}
	return list
}
