package meshdebug

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/chatixia-ai/mesh"
)

// A Snapshot is the mesh at one moment, as one agent and those of its peers see it that answer.
type Snapshot struct {
	Self           string              `json:"self"` // the id of the agent that looks
	At             time.Time           `json:"at"`
	Signaling      mesh.SignalingState `json:"signaling"`
	SignalingError string              `json:"signaling_error,omitempty"`
	// Restarts and Dropped are those of mesh.Stats, of the agent that looks.
	Restarts int            `json:"restarts"`
	Dropped  map[string]int `json:"dropped,omitempty"`

	Nodes  []Node  `json:"nodes"`  // the agent itself first, the others sorted by id
	Links  []Link  `json:"links"`  // sorted by their ends
	Events []Event `json:"events"` // the newest first
	// LeftOut is how many agents and links are left out, since there are too many.
	LeftOut int `json:"left_out,omitempty"`

	settled bool // nothing more is to be expected soon
}

// A Node is an agent.
type Node struct {
	ID   string `json:"id"`
	Self bool   `json:"self,omitempty"`
	// Linked says that the agent that looks has a link to this one. Of the others, peers have told.
	Linked bool   `json:"linked,omitempty"`
	Key    string `json:"key,omitempty"`
	// Name, Version and Skills are from its card, shortened if they are long.
	Name    string    `json:"name,omitempty"`
	Version string    `json:"version,omitempty"`
	Skills  []string  `json:"skills,omitempty"`
	Since   time.Time `json:"since,omitzero"` // the link to it came up
	Gone    time.Time `json:"gone,omitzero"`  // the link to it was found gone; such nodes are kept for a minute
	// Answers says that the agent tells of its links.
	Answers bool `json:"answers,omitempty"`

	Links             int     `json:"links"`
	SentPerSecond     float64 `json:"sent_per_second"` // bytes, over all links that are known
	ReceivedPerSecond float64 `json:"received_per_second"`
	RTT               float64 `json:"rtt_ms,omitempty"` // of the link of the agent that looks
	Queued            int     `json:"queued,omitempty"` // bytes, at this agent
	// Behind is from how many peers something is held back, since this agent, or the way to it, is behind.
	Behind int `json:"behind,omitempty"`
}

// A Link is one between two agents, A being the one whose id is first.
type Link struct {
	A       string    `json:"a"`
	B       string    `json:"b"`
	By      []string  `json:"by"` // who tells of it, of the two
	Path    mesh.Path `json:"path,omitempty"`
	RTT     float64   `json:"rtt_ms,omitempty"`
	Since   time.Time `json:"since,omitzero"`  // only of the links of the agent that looks, as are the addresses
	Local   string    `json:"local,omitempty"` // its own
	Remote  string    `json:"remote,omitempty"`
	Streams int       `json:"streams,omitempty"`
	Outages int       `json:"outages,omitempty"`
	AB      Flow      `json:"ab"` // from A to B
	BA      Flow      `json:"ba"`
}

// A Flow is one direction of a link. See mesh.PeerStats for what the numbers are.
type Flow struct {
	PerSecond         float64   `json:"per_second"` // bytes
	MessagesPerSecond float64   `json:"messages_per_second"`
	Bytes             int       `json:"bytes"`
	Messages          int       `json:"messages"`
	Queued            int       `json:"queued,omitempty"`    // bytes, at the sender
	Requests          int       `json:"requests,omitempty"`  // of the sender, in work
	HeldBack          mesh.Hold `json:"held_back,omitempty"` // by the sender, since the receiver or the way to it is behind
	Paused            mesh.Hold `json:"paused,omitempty"`    // what the receiver has asked the sender to hold back
}

// The kinds of events.
const (
	EventCame    = "came"
	EventGone    = "gone"
	EventPath    = "path"    // the link goes another way
	EventOutage  = "outage"  // the link has survived one
	EventRestart = "restart" // the sidecar of the agent that looks was lost, and another one came up
)

// An Event is something that has happened, as the agent that looks has seen it.
type Event struct {
	At   time.Time `json:"at"`
	Type string    `json:"type"`
	Peer string    `json:"peer,omitempty"`
	Path mesh.Path `json:"path,omitempty"` // of EventPath: the new one
}

// The bounds of a snapshot. A peer may tell of anything.
const (
	maxNodes  = 512
	maxLinks  = 4096
	maxEvents = 100
)

// assemble makes nodes and links of what each agent says, the one that looks first.
func assemble(s *Snapshot, own *view, others map[string]*view, gone map[string]time.Time) {
	nodes := map[string]*Node{s.Self: {ID: s.Self, Self: true}}
	for id, p := range own.peers {
		if id != s.Self && len(nodes) < maxNodes {
			nodes[id] = &Node{ID: id, Linked: true, Key: p.key, Since: p.since, RTT: p.rtt, Answers: others[id] != nil}
			nodes[id].describe(p.card)
		}
	}
	left := max(0, len(own.peers)+1-maxNodes)
	views := make([]*view, 0, len(others)+1)
	views = append(views, own)
	for _, id := range slices.Sorted(maps.Keys(others)) {
		if nodes[id] != nil {
			views = append(views, others[id])
		}
	}
	for id, at := range gone {
		if nodes[id] == nil && len(nodes) < maxNodes {
			nodes[id] = &Node{ID: id, Gone: at}
		}
	}
	for _, v := range views[1:] {
		for _, id := range slices.Sorted(maps.Keys(v.peers)) {
			switch {
			case nodes[id] != nil:
			case len(nodes) < maxNodes:
				nodes[id] = &Node{ID: id}
			default:
				left++
			}
		}
	}
	links := merge(s.Self, views, nodes)
	for _, l := range links {
		if len(s.Links) == maxLinks {
			left++
			continue
		}
		s.Links = append(s.Links, *l)
		nodes[l.A].add(&l.AB, &l.BA)
		nodes[l.B].add(&l.BA, &l.AB)
	}
	slices.SortFunc(s.Links, func(x, y Link) int { return cmp.Or(strings.Compare(x.A, y.A), strings.Compare(x.B, y.B)) })
	for _, n := range nodes {
		s.Nodes = append(s.Nodes, *n)
	}
	slices.SortFunc(s.Nodes, func(x, y Node) int {
		if x.Self != y.Self {
			return map[bool]int{true: -1, false: 1}[x.Self]
		}
		return strings.Compare(x.ID, y.ID)
	})
	s.LeftOut = left
}

// The bounds of what is shown of a card.
const (
	maxShown  = 128 // bytes of a text
	maxSkills = 16
)

func (n *Node) describe(c *mesh.Card) {
	if c == nil {
		return
	}
	n.Name, n.Version = shortened(c.Name), shortened(c.Version)
	for _, s := range c.Skills[:min(len(c.Skills), maxSkills)] {
		n.Skills = append(n.Skills, shortened(s.Name))
	}
}

func shortened(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return strings.ToValidUTF8(s[:maxShown], "") + "…"
}

func (n *Node) add(out, in *Flow) {
	n.Links++
	n.SentPerSecond += out.PerSecond
	n.ReceivedPerSecond += in.PerSecond
	n.Queued += out.Queued
	if in.HeldBack != "" || in.Paused != "" {
		n.Behind++
	}
}

// merge returns the links that the agents tell of. What the sender says of a direction counts; of its own links the agent that looks
// counts by itself. The links of that agent are first, then the busiest.
func merge(self string, views []*view, nodes map[string]*Node) []*Link {
	links := make(map[[2]string]*Link)
	for _, v := range views {
		for id, p := range v.peers {
			if nodes[id] == nil || id == v.of {
				continue
			}
			if id == self && views[0].peers[v.of] == nil {
				continue // it has ended here
			}
			a, b := min(v.of, id), max(v.of, id)
			l := links[[2]string{a, b}]
			first := l == nil
			if first {
				l = &Link{A: a, B: b}
				links[[2]string{a, b}] = l
			}
			l.By = append(l.By, v.of)
			out, in := &l.AB, &l.BA
			if v.of == b {
				out, in = in, out
			}
			if first {
				l.Path, l.RTT, l.Streams, l.Outages = p.path, p.rtt, p.streams, p.outages
				l.Local, l.Remote, l.Since = p.local, p.remote, p.since
				*in = Flow{PerSecond: p.received.perSecond, MessagesPerSecond: p.received.messagesPerSecond, Bytes: p.received.bytes, Messages: p.received.messages}
			}
			if id != self { // whose own word counts
				if p.path == mesh.PathRelayed || l.Path == "" {
					l.Path = p.path
				}
				l.RTT, l.Outages = cmp.Or(l.RTT, p.rtt), max(l.Outages, p.outages)
				out.PerSecond, out.MessagesPerSecond, out.Bytes, out.Messages = p.sent.perSecond, p.sent.messagesPerSecond, p.sent.bytes, p.sent.messages
			}
			out.Queued, out.Requests, out.HeldBack = p.queued, max(p.pending, out.Requests), p.heldBack
			in.Paused, in.Requests = p.paused, max(in.Requests, p.handling)
		}
	}
	list := slices.Collect(maps.Values(links))
	for _, l := range list {
		slices.Sort(l.By)
	}
	own := func(l *Link) int { return map[bool]int{true: 0, false: 1}[l.A == self || l.B == self] }
	slices.SortFunc(list, func(x, y *Link) int {
		return cmp.Or(cmp.Compare(own(x), own(y)), cmp.Compare(y.AB.PerSecond+y.BA.PerSecond, x.AB.PerSecond+x.BA.PerSecond),
			strings.Compare(x.A, y.A), strings.Compare(x.B, y.B))
	})
	return list
}

// A view is what one agent says of its links.
type view struct {
	of    string
	clock time.Duration // the agent's own
	taken time.Time     // by our clock
	peers map[string]*linkView
}

// A linkView is what one agent says of one link.
type linkView struct {
	key, local, remote string
	card               *mesh.Card // of the peers of the agent that looks
	since              time.Time
	sinceMS            int64 // tells one link from the next one to the same peer
	path               mesh.Path
	rtt                float64 // ms
	sent, received     counter
	queued             int
	streams, outages   int
	handling, pending  int
	heldBack, paused   mesh.Hold
}

// answers reports whether the peer says that it tells of its links.
func (l *linkView) answers() bool {
	return l.card != nil && slices.Contains(l.card.Queries, StatsQuery)
}

type counter struct {
	bytes, messages              int
	perSecond, messagesPerSecond float64
}

// maxGap is the longest time over which a rate says something.
const maxGap = 30 * time.Second

// rates computes those of v, from what the same agent has said before.
func (v *view) rates(before *view) {
	if before == nil {
		return
	}
	seconds := (v.clock - before.clock).Seconds()
	if seconds <= 0 || seconds > maxGap.Seconds() {
		return
	}
	for id, p := range v.peers {
		if q := before.peers[id]; q != nil && q.sinceMS == p.sinceMS {
			p.sent.rate(q.sent, seconds)
			p.received.rate(q.received, seconds)
		}
	}
}

func (c *counter) rate(before counter, seconds float64) {
	c.perSecond = max(0, float64(c.bytes-before.bytes)/seconds)
	c.messagesPerSecond = max(0, float64(c.messages-before.messages)/seconds)
}
