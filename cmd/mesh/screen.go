package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/chatixia-ai/mesh/meshdebug"
)

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
