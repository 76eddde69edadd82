package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/meshdebug"
)

const topHelp = `Show the agents and the links between them, again and again: who is there, round trip times,
rates, what waits and what is held back, who has come and gone.

This command joins the mesh and sees its own links. Those of others are shown if the agents
tell of them, as those do that call meshdebug.Answer.

On a terminal the table stays in place; elsewhere one follows the other. With --json there is
a line of JSON each time: that of stats.json of package meshdebug.`

// topFlags are the flags of mesh top.
type topFlags struct {
	joinFlags
	interval time.Duration
	count    int
	own      bool
}

func newTop() *cobra.Command {
	var f topFlags
	c := &cobra.Command{
		Use: "top", Short: "Show who is there and how the links are", Long: topHelp,
		Example: "  mesh top\n  mesh top -n 1\n  mesh top --json --interval 10s | jq -c '.nodes | length'",
		Args:    cobra.NoArgs,
	}
	f.add(c)
	c.Flags().DurationVar(&f.interval, "interval", 2*time.Second, "the time from one picture to the next")
	c.Flags().IntVarP(&f.count, "count", "n", 0, "how many there are; 0 is until interrupted")
	c.Flags().BoolVar(&f.own, "own", false, "show only the links of this command, and ask nobody for others")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if f.count < 0 || f.interval < 100*time.Millisecond {
			return usage(errors.New("--count: want 0 or more; --interval: 100ms or more"))
		}
		return f.with(c, mesh.Config{}, func(ctx context.Context, m *mesh.Mesh) error { return f.top(ctx, c, m) })
	}
	return c
}

func (f *topFlags) top(ctx context.Context, c *cobra.Command, m *mesh.Mesh) error {
	asJSON, err := c.Flags().GetBool("json")
	if err != nil {
		return err
	}
	opts := []meshdebug.Option{meshdebug.Interval(f.interval)}
	if f.own {
		opts = append(opts, meshdebug.OwnView())
	}
	show := func(s *meshdebug.Snapshot) error { return printJSON(c.OutOrStdout(), s) }
	if !asJSON {
		s := newScreen(c.OutOrStdout())
		defer s.leave()
		show = s.show
	}
	shown := 0
	for s := range meshdebug.Watch(ctx, m, opts...) {
		if err := show(s); err != nil {
			return err
		}
		if shown++; shown == f.count {
			return nil
		}
	}
	<-ctx.Done() // by a signal, or since the mesh has ended
	return ended(ctx)
}

// What a terminal is told.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l" // another screen than that of the shell, no cursor, no line breaks of its own
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	restOfLine  = "\x1b[K"
	restOfAll   = "\x1b[J"
)

// noBottom is the height of what is no terminal.
const noBottom = 1 << 20

// A style is how a text looks on a terminal.
type style string

const (
	plainText style = ""
	bold      style = "1"
	dim       style = "2"
	red       style = "31"
	green     style = "32"
	yellow    style = "33"
)

// A screen shows snapshots: in place on a terminal, and one after the other elsewhere.
type screen struct {
	w       io.Writer
	size    func() (width, height int, err error) // nil if it is no terminal
	colours bool
	entered bool
	before  bool // something was shown
}

func newScreen(w io.Writer) *screen {
	s := &screen{w: w}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		s.size = func() (int, int, error) { return term.GetSize(int(f.Fd())) }
		s.colours = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	return s
}

func (s *screen) show(snapshot *meshdebug.Snapshot) error {
	lines := s.lines(snapshot, noBottom)
	text := strings.Join(lines, "\n") + "\n"
	if s.size != nil {
		width, height, err := s.size()
		if err != nil || width <= 0 || height <= 0 {
			width, height = 80, 24
		}
		lines = s.lines(snapshot, height)
		text = home + strings.Join(lines[:min(len(lines), height)], restOfLine+"\n") + restOfLine + restOfAll
		if !s.entered {
			s.entered = true
			text = enterScreen + text
		}
	} else if s.before {
		text = "\n" + text
	}
	s.before = true
	_, err := io.WriteString(s.w, text)
	return err
}

// leave gives the terminal back as it was.
func (s *screen) leave() {
	if s.entered {
		s.entered = false
		_, _ = io.WriteString(s.w, leaveScreen) // if there is no terminal any more, nothing is to be given back
	}
}

// A cell is a text of a table.
type cell struct {
	text string
	style
}

func (s *screen) styled(c cell) string {
	if !s.colours || c.style == plainText {
		return c.text
	}
	return "\x1b[" + string(c.style) + "m" + c.text + "\x1b[0m"
}

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

func titles(names ...string) (row []cell) {
	for _, name := range names {
		row = append(row, cell{name, bold})
	}
	return row
}

// widestName is how many characters of a name a table has.
const widestName = 32

// table lays out rows, the first text columns to the left and the others to the right, in at most height lines.
func (s *screen) table(rows [][]cell, text, height int) []string {
	more := 0
	if len(rows) > height {
		more = len(rows) - max(1, height-1)
		rows = rows[:len(rows)-more]
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i := range row {
			row[i].text = cut(row[i].text)
			widths[i] = max(widths[i], len([]rune(row[i].text)))
		}
	}
	lines := make([]string, 0, len(rows)+1)
	for _, row := range rows {
		var line strings.Builder
		for i, c := range row {
			pad := strings.Repeat(" ", widths[i]-len([]rune(c.text)))
			if last := i == len(row)-1; i < text || last {
				line.WriteString(s.styled(c))
				if !last {
					line.WriteString(pad + "  ")
				}
			} else {
				line.WriteString(pad + s.styled(c) + "  ")
			}
		}
		lines = append(lines, strings.TrimRight(line.String(), " "))
	}
	if more > 0 && height > 1 {
		lines = append(lines, s.styled(cell{fmt.Sprintf("and %d more", more), dim}))
	}
	return lines
}

// cut keeps both ends of a name that is too long: many differ only at the last characters.
func cut(name string) string {
	r := []rune(name)
	if len(r) <= widestName {
		return name
	}
	return string(r[:widestName/2]) + "…" + string(r[len(r)-widestName/2+1:])
}

func faint(text string) cell {
	if text == "-" {
		return cell{text, dim}
	}
	return cell{text, plainText}
}

func several(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// size returns a number of bytes for people.
func size(n float64) string {
	if n < 0.5 {
		return "-"
	}
	units := []string{"B", "kB", "MB", "GB", "TB"}
	i := 0
	for n >= 999.5 && i < len(units)-1 {
		n /= 1000
		i++
	}
	if i == 0 || n >= 99.95 {
		return fmt.Sprintf("%.0f %s", n, units[i])
	}
	return fmt.Sprintf("%.1f %s", n, units[i])
}

func perSecond(n float64) string {
	if text := size(n); text != "-" {
		return text + "/s"
	}
	return "-"
}

func milliseconds(ms float64) string {
	switch {
	case ms <= 0:
		return "-"
	case ms < 10:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 100:
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// short returns a duration in one unit.
func short(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", math.Floor(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0f h", math.Floor(d.Hours()))
	}
	return fmt.Sprintf("%.0f d", math.Floor(d.Hours()/24))
}
