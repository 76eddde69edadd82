package strict

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxName is the length at which a name in a path is cut, and maxPath that at which a path is: peers choose them, and they end up in
// errors and logs.
const (
	maxName = 64
	maxPath = 1024
)

// A step leads from a value to one inside of it.
type step struct {
	kind  stepKind
	name  string // of a field
	raw   []byte // the key of a map, as it is written in the text
	index int
}

type stepKind int

const (
	stepField stepKind = iota
	stepKey
	stepElement
)

func (s step) String() string {
	switch s.kind {
	case stepElement:
		return "[" + strconv.Itoa(s.index) + "]"
	case stepKey:
		return "[" + strconv.Quote(cut(unquote(s.raw), maxName)) + "]"
	}
	name := cut(s.name, maxName)
	if quoted := strconv.Quote(name); len(quoted) > len(name)+2 { // it would not be seen for what it is
		return "[" + quoted + "]"
	}
	return "." + name
}

// pathOf returns a path as it is written. Of one that is too long the middle is left out.
func pathOf(name string, steps []step) string {
	var b strings.Builder
	b.WriteString(name)
	for _, s := range steps {
		b.WriteString(s.String())
	}
	path := b.String()
	if len(path) <= maxPath {
		return path
	}
	const end = (maxPath - len(ellipsis)) / 2
	return strings.ToValidUTF8(path[:end], "") + ellipsis + strings.ToValidUTF8(path[len(path)-end:], "")
}

const ellipsis = "…"

// cut returns the beginning of a text, in valid UTF-8.
func cut[T string | []byte](text T, most int) string {
	if len(text) <= most {
		return strings.ToValidUTF8(string(text), string(utf8.RuneError))
	}
	return strings.ToValidUTF8(string(text[:most]), "") + ellipsis
}
