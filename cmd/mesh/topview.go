package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/meshdebug"
)

// lines returns what there is to show, in at most height lines.
func (s *screen) lines(p *meshdebug.Snapshot, height int) []string {
	lines := s.summary(p)
	left := height - len(lines)
	most := min(5, left/5)
	if height == noBottom {
		most = 11
	}
	events := s.events(p, most)
	left -= len(events)
	agents := left
	if len(p.Links) > 0 {
		agents = max(left*3/5, left-len(p.Links)-3)
	}
	table := s.agents(p, agents)
	lines = append(lines, table...)
	lines = append(lines, s.links(p, left-len(table))...)
	return append(lines, events...)
}

func (s *screen) summary(p *meshdebug.Snapshot) []string {
	here, relayed, held, traffic := 0, 0, 0, 0.0
	for i := range p.Nodes {
		if p.Nodes[i].Gone.IsZero() {
			here++
			traffic += p.Nodes[i].SentPerSecond
		}
	}
	for i := range p.Links {
		if p.Links[i].Path == mesh.PathRelayed {
			relayed++
		}
		if heldBack(&p.Links[i]) != "" {
			held++
		}
	}
	state := cell{string(p.Signaling), green}
	if p.Signaling != mesh.SignalingConnected || p.SignalingError != "" {
		state = cell{strings.TrimSuffix(string(p.Signaling)+": "+printable(strings.ReplaceAll(p.SignalingError, "\n", " ")), ": "), red}
	}
	text := fmt.Sprintf("%s, %s, %d relayed, %s", several(here, "agent"), several(len(p.Links), "link"), relayed, perSecond(traffic))
	more := cell{}
	if held > 0 {
		more = cell{fmt.Sprintf(", %d held back", held), red}
	}
	for _, reason := range []struct {
		n    int
		what string
	}{{dropped(p), "dropped here"}, {p.Restarts, "restarts here"}, {p.LeftOut, "left out"}} {
		if reason.n > 0 {
			more = cell{more.text + fmt.Sprintf(", %d %s", reason.n, reason.what), red}
		}
	}
	return []string{
		s.styled(cell{"mesh, as " + quote(p.Self) + " sees it", bold}) + "  " + s.styled(state) + "  " + p.At.Local().Format(time.TimeOnly),
		text + s.styled(more),
	}
}

func dropped(p *meshdebug.Snapshot) (n int) {
	for _, m := range p.Dropped {
		n += m
	}
	return n
}

// agents returns the table of the agents: by id if all have room, else the busiest.
func (s *screen) agents(p *meshdebug.Snapshot, height int) []string {
	nodes := slices.Clone(p.Nodes)
	if len(nodes)+2 > height {
		slices.SortStableFunc(nodes, func(x, y meshdebug.Node) int {
			return cmp.Compare(y.SentPerSecond+y.ReceivedPerSecond, x.SentPerSecond+x.ReceivedPerSecond)
		})
	}
	paths := make(map[string]mesh.Path)
	for i := range p.Links {
		switch l := &p.Links[i]; p.Self {
		case l.A:
			paths[l.B] = l.Path
		case l.B:
			paths[l.A] = l.Path
		}
	}
	rows := [][]cell{titles("AGENT", "PATH", "RTT", "SENDS", "RECEIVES", "QUEUED", "BEHIND", "LINKS", "LINKED")}
	for i := range nodes {
		rows = append(rows, agentRow(&nodes[i], paths[nodes[i].ID], p.At))
	}
	return s.table(rows, 2, height)
}

func agentRow(n *meshdebug.Node, path mesh.Path, now time.Time) []cell {
	name, linked := cell{quote(n.ID), plainText}, cell{"-", dim}
	switch {
	case n.Self:
		name.style = bold
	case !n.Gone.IsZero():
		name.style, linked = dim, cell{"gone " + short(now.Sub(n.Gone)), red}
	case !n.Since.IsZero():
		linked = cell{short(now.Sub(n.Since)), plainText}
		if now.Sub(n.Since) < 15*time.Second {
			linked.style = green
		}
	}
	way := cell{cmp.Or(string(path), "-"), plainText}
	switch {
	case path == mesh.PathRelayed:
		way.style = yellow
	case n.Self:
		way.text = "itself"
	}
	behind := cell{"-", dim}
	if n.Behind > 0 {
		behind = cell{several(n.Behind, "link"), red}
	}
	return []cell{
		name, way, faint(milliseconds(n.RTT)), faint(perSecond(n.SentPerSecond)), faint(perSecond(n.ReceivedPerSecond)),
		faint(size(float64(n.Queued))), behind, {fmt.Sprint(n.Links), plainText}, linked,
	}
}

// links returns the table of the busiest links, if there is room for any.
func (s *screen) links(p *meshdebug.Snapshot, height int) []string {
	if height < 3 || len(p.Links) == 0 {
		return nil
	}
	links := slices.Clone(p.Links)
	slices.SortStableFunc(links, func(x, y meshdebug.Link) int {
		return cmp.Or(cmp.Compare(len(heldBack(&y)), len(heldBack(&x))), cmp.Compare(y.AB.PerSecond+y.BA.PerSecond, x.AB.PerSecond+x.BA.PerSecond))
	})
	rows := [][]cell{titles("LINK", "", "PATH", "RTT", "A TO B", "B TO A", "QUEUED", "HELD BACK")}
	for i := range links {
		l := &links[i]
		way := cell{cmp.Or(string(l.Path), "-"), plainText}
		if l.Path == mesh.PathRelayed {
			way.style = yellow
		}
		rows = append(rows, []cell{
			{quote(l.A), plainText}, {quote(l.B), plainText}, way, faint(milliseconds(l.RTT)), faint(perSecond(l.AB.PerSecond)), faint(perSecond(l.BA.PerSecond)),
			faint(size(float64(l.AB.Queued + l.BA.Queued))), {cmp.Or(heldBack(l), "-"), map[bool]style{true: dim, false: red}[heldBack(l) == ""]},
		})
	}
	return append([]string{""}, s.table(rows, 3, height-1)...)
}

// heldBack says what is held back on a link, in which direction; "" if nothing is.
func heldBack(l *meshdebug.Link) string {
	var parts []string
	for _, way := range []struct {
		name string
		*meshdebug.Flow
	}{{"to " + quote(l.B), &l.AB}, {"to " + quote(l.A), &l.BA}} {
		if hold := cmp.Or(way.HeldBack, way.Paused); hold != "" {
			parts = append(parts, strings.ReplaceAll(string(hold), "_", " ")+" "+way.name)
		}
	}
	return strings.Join(parts, ", ")
}

func (s *screen) events(p *meshdebug.Snapshot, most int) []string {
	if most <= 1 || len(p.Events) == 0 {
		return nil
	}
	lines := []string{""}
	words := map[string]cell{
		meshdebug.EventCame: {"came", green}, meshdebug.EventGone: {"went", red}, meshdebug.EventPath: {"goes another way", yellow},
		meshdebug.EventOutage: {"survived an outage", yellow}, meshdebug.EventRestart: {"the sidecar was started again", red},
	}
	for _, e := range p.Events[:min(len(p.Events), most-1)] {
		line := s.styled(cell{e.At.Local().Format(time.TimeOnly), dim}) + " "
		if e.Peer != "" {
			line += quote(e.Peer) + " "
		}
		lines = append(lines, line+s.styled(words[e.Type]))
	}
	return lines
}
