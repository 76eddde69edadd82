package main

import (
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// proseLine is a line of a document outside of fenced code blocks.
type proseLine struct {
	number int // from 1
	text   string
}

var fence = regexp.MustCompile("^ {0,3}(```+|~~~+)")

func prose(document string) (lines []proseLine) {
	open := ""
	for i, line := range strings.Split(document, "\n") {
		mark := fence.FindStringSubmatch(line)
		switch {
		case open == "" && mark != nil:
			open = mark[1]
		case open == "":
			lines = append(lines, proseLine{i + 1, line})
		case mark != nil && strings.HasPrefix(mark[1], open) && strings.TrimSpace(line) == mark[1]:
			open = ""
		}
	}
	return lines
}

var (
	codeSpan = regexp.MustCompile("`[^`]+`")
	heading  = regexp.MustCompile(`^ {0,3}#{1,6}[ \t]+(.*?)[ \t]*#*[ \t]*$`)
	inline   = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

// anchors returns the anchors that GitHub gives the headings of a document.
func anchors(document string) map[string]bool {
	found := make(map[string]bool)
	for _, line := range prose(document) {
		m := heading.FindStringSubmatch(line.text)
		if m == nil {
			continue
		}
		base := slug(inline.ReplaceAllString(m[1], "$1"))
		anchor := base
		for n := 1; found[anchor]; n++ {
			anchor = base + "-" + strconv.Itoa(n)
		}
		found[anchor] = true
	}
	return found
}

// slug keeps letters, digits, hyphens and underscores of a heading, and makes its spaces hyphens.
func slug(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, text)
}
