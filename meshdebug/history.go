package meshdebug

import (
	"slices"
	"time"
)

const (
	historyLife = 5 * time.Minute
	maxPoints   = 600
	maxHistory  = 128 // nodes in each point
)

// A point is one moment of the history.
type point struct {
	at    time.Time
	nodes map[string]nodePoint
}

type nodePoint struct{ sent, received, rtt float32 }

// remember adds a point to the history.
func (c *collector) remember(s *Snapshot) {
	p := point{at: s.At, nodes: make(map[string]nodePoint)}
	for _, known := range []bool{true, false} { // first those of which the agent knows by itself
		for i := range s.Nodes {
			if n := &s.Nodes[i]; n.Gone.IsZero() && (n.Self || n.Linked) == known && len(p.nodes) < maxHistory {
				p.nodes[n.ID] = nodePoint{float32(n.SentPerSecond), float32(n.ReceivedPerSecond), float32(n.RTT)}
			}
		}
	}
	drop := 0
	for drop < len(c.points) && (s.At.Sub(c.points[drop].at) > historyLife || len(c.points)-drop >= maxPoints) {
		drop++
	}
	c.points = append(slices.Delete(c.points, 0, drop), p)
}

// A history is what a page gets first: values of nodes at times, null where there were none.
type history struct {
	Times []int64                  `json:"times"` // ms since 1970
	Nodes map[string][3][]*float32 `json:"nodes"` // sent and received bytes per second, RTT in ms
}

// history returns that of the nodes that there are now.
func (c *collector) history() history {
	c.mu.Lock()
	points := slices.Clone(c.points) // which are not changed any more
	c.mu.Unlock()
	h := history{Times: make([]int64, 0, len(points)), Nodes: make(map[string][3][]*float32)}
	if len(points) == 0 {
		return h
	}
	for id := range points[len(points)-1].nodes {
		h.Nodes[id] = [3][]*float32{make([]*float32, len(points)), make([]*float32, len(points)), make([]*float32, len(points))}
	}
	for i, p := range points {
		h.Times = append(h.Times, p.at.UnixMilli())
		for id, values := range h.Nodes {
			if n, ok := p.nodes[id]; ok {
				values[0][i], values[1][i], values[2][i] = &n.sent, &n.received, &n.rtt
			}
		}
	}
	return h
}
