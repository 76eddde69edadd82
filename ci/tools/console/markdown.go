package main

import (
	"fmt"
	"regexp"
	"strings"
)

// block is the dialogue in one terminal: the text between ```console and ```.
type block struct {
	line  int // of the opening fence, from 1
	text  string
	steps []step
}

// step is one line of a block, or several lines of a command that continues after a backslash.
type step struct {
	kind stepKind
	text string
	// Of output: the whole line, and the line after a prompt.
	line, prompted *regexp.Regexp
}

type stepKind int

const (
	command stepKind = iota // "$ ...": typed into the shell
	input                   // "> ...": typed into the running program
	output                  // anything else: expected
)

const fence = "```"

// blocks finds the console blocks of a Markdown file.
func blocks(markdown string) ([]block, error) {
	var found []block
	var open *block
	inFence := false
	for i, line := range strings.Split(markdown, "\n") {
		line = strings.TrimRight(line, " \t\r")
		switch {
		case open != nil && line == fence:
			if err := open.parse(); err != nil {
				return nil, fmt.Errorf("block at line %d: %w", open.line, err)
			}
			found = append(found, *open)
			open, inFence = nil, false
		case open != nil:
			open.text += line + "\n"
		case inFence:
			inFence = line != fence
		case line == fence+"console":
			open = &block{line: i + 1}
		case strings.HasPrefix(line, fence):
			inFence = true
		}
	}
	if open != nil {
		return nil, fmt.Errorf("block at line %d is never closed", open.line)
	}
	return found, nil
}

func (b *block) parse() error {
	continued := false
	for line := range strings.Lines(b.text) {
		line = strings.TrimSuffix(line, "\n")
		if continued {
			last := &b.steps[len(b.steps)-1]
			last.text += "\n" + line
			continued = strings.HasSuffix(line, `\`)
			continue
		}
		s := parseStep(line)
		switch {
		case s.kind != command && len(b.steps) == 0 && line != "":
			return fmt.Errorf("it begins with %q instead of a command (\"$ ...\")", line)
		case s.kind == output && line == "":
			continue
		}
		continued = s.kind == command && strings.HasSuffix(line, `\`)
		b.steps = append(b.steps, s)
	}
	switch {
	case len(b.steps) == 0:
		return fmt.Errorf("it is empty")
	case continued:
		return fmt.Errorf("its last command ends in a backslash")
	}
	return nil
}

func parseStep(line string) step {
	if text, ok := strings.CutPrefix(line, "$ "); ok {
		return step{kind: command, text: text}
	}
	if text, ok := strings.CutPrefix(line, "> "); ok {
		return step{kind: input, text: text}
	}
	// "..." stands for any text, or none.
	pattern := strings.ReplaceAll(regexp.QuoteMeta(line), regexp.QuoteMeta("..."), ".*")
	return step{
		kind: output, text: line,
		line:     regexp.MustCompile("^" + pattern + "$"),
		prompted: regexp.MustCompile("^.* " + pattern + "$"),
	}
}

// interactive reports whether the last command is shown with output or input, and so may keep running.
func (b *block) interactive() bool { return b.steps[len(b.steps)-1].kind != command }

// background reports whether some command runs in the background.
func (b *block) background() bool {
	for _, s := range b.steps {
		if s.kind == command && strings.HasSuffix(s.text, "&") {
			return true
		}
	}
	return false
}
