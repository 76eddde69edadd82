package wire

import (
	"bytes"
	"strconv"
)

// scanner reads one JSON text from front to back. It is a cursor, not a tokenizer: the parsers walk the
// two or three outer objects with open and next, and skip everything inside them.
//
// The first error sticks: after it every method returns at once, and next and element report the end, so
// that callers check err once, when they are done.
type scanner struct {
	b       []byte
	i       int    // offset of the next byte
	depth   int    // containers open at i
	limit   int    // the most that may be open
	outer   int    // those around the object that the limit is for; errors do not count them
	checked bool   // the text was checked before
	first   bool   // before the first member of the container entered last
	key     key    // of the member that next moved to
	alike   key    // if key is keyOther: the key that the member's name spells in another case
	escaped bool   // the last string has escapes
	where   string // path of the object being walked, for errors
	err     *Error
}

// value is the position of one JSON value in the text.
type value struct {
	start, end int
	kind       byte // its first byte, which distinguishes objects, strings and so on; 0 if absent
	escaped    bool // a string with escapes
}

// empty reports whether a string is empty.
func (v value) empty() bool { return v.end-v.start == len(`""`) }

// raw returns the value's JSON text, or nil if it is absent.
func (s *scanner) raw(v value) []byte {
	if v.kind == 0 {
		return nil
	}
	return s.b[v.start:v.end:v.end]
}

// text returns the contents of a string: a subslice of the input unless it has escapes.
func (s *scanner) text(v value) []byte {
	in := s.b[v.start+1 : v.end-1 : v.end-1]
	if !v.escaped {
		return in
	}
	return appendUnescaped(make([]byte, 0, len(in)), in)
}

func (s *scanner) fail(code Code, text string) bool {
	if s.err == nil {
		s.err = problem(code, s.where, text, s.i)
	}
	return false
}

// unexpected fails because of the byte at the cursor, where want should be.
func (s *scanner) unexpected(want string) bool {
	if s.i >= len(s.b) {
		return s.fail(CodeMalformed, "unexpected end, want "+want)
	}
	return s.fail(CodeMalformed, "unexpected "+strconv.QuoteToASCII(string(s.b[s.i:s.i+1]))+", want "+want)
}

// peek skips white space and returns the byte at the cursor then, or 0 at the end. It is split in two so
// that the usual case, no white space, is inlined.
func (s *scanner) peek() byte {
	if s.i < len(s.b) && s.b[s.i] > ' ' {
		return s.b[s.i]
	}
	return s.peekOverSpace()
}

func (s *scanner) peekOverSpace() byte {
	for ; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; c {
		case ' ', '\n', '\r', '\t':
		default:
			return c
		}
	}
	return 0
}

// open enters the object or array at the cursor. It need not check the limit, which always allows for the
// few that are walked: a message has at least one level, and a line EnvelopeDepth more.
func (s *scanner) open() {
	s.depth++
	s.i++
	s.first = true
}

func (s *scanner) tooDeep() bool {
	return s.fail(CodeTooDeep, "nested deeper than "+strconv.Itoa(s.limit-s.outer)+" levels")
}

// next moves to the value of the next member of the object entered last. At the end of the object it leaves
// the object and returns false.
func (s *scanner) next() bool {
	if !s.element('}') {
		return false
	}
	if s.peek() != '"' {
		return s.unexpected("a key")
	}
	if s.knownKey() {
		return s.colon()
	}
	start := s.i + 1
	if !s.str() {
		return false
	}
	s.key, s.alike = lookup(s.b[start:s.i-1], s.escaped)
	return s.colon()
}

// skipOther skips the value of a member that has no meaning in the object being walked; known are the keys
// that have one. A name that differs from one of them only in case is an error: readers that ignore case would
// take the member for the known one, and see another line than this parser.
func (s *scanner) skipOther(known keySet) (bad *Error) {
	if s.key == keyOther && known.has(s.alike) {
		bad = problem(CodeInvalidField, s.path(s.alike), "written in another case", s.i)
	}
	s.skip()
	return bad
}

// knownKey skips the string at the cursor if it is the name of a key, written without escapes. It is the
// fast path: a string that equals a name needs no check for UTF-8 or escapes.
func (s *scanner) knownKey() bool {
	rest := s.b[s.i+1:]
	n := bytes.IndexByte(rest[:min(len(rest), longestKey+1)], '"')
	if n < 0 {
		return false
	}
	s.key = lookupText(rest[:n])
	if s.key == keyOther {
		return false
	}
	s.i += n + 2
	return true
}

func (s *scanner) colon() bool {
	if s.peek() != ':' {
		return s.unexpected("':'")
	}
	s.i++
	return true
}

// element moves to the next element of the container entered last, which ends with closer. At the end of
// the container it leaves the container and returns false.
func (s *scanner) element(closer byte) bool {
	if s.err != nil {
		return false
	}
	first := s.first
	s.first = false
	switch c := s.peek(); {
	case c == closer:
		s.i++
		s.depth--
		return false
	case first:
		return true
	case c == ',':
		s.i++
		return true
	}
	return s.unexpected("',' or '" + string(rune(closer)) + "'")
}

// value checks the value at the cursor, of any kind, moves behind it, and returns its position.
func (s *scanner) value() value {
	c := s.peek()
	start := s.i
	if c == '"' { // most are strings
		if !s.str() {
			return value{}
		}
	} else if !s.skip() {
		return value{}
	}
	return value{start: start, end: s.i, kind: c, escaped: c == '"' && s.escaped}
}

// end checks that nothing but white space follows.
func (s *scanner) end() bool {
	if s.err != nil {
		return false
	}
	s.peek()
	if s.i < len(s.b) {
		return s.unexpected("the end")
	}
	return true
}

// skip checks the value at the cursor and moves behind it.
func (s *scanner) skip() bool {
	if s.err != nil {
		return false
	}
	switch c := s.peek(); c {
	case '{', '[':
		return s.skipNested()
	default:
		return s.skipScalar(c)
	}
}

func (s *scanner) skipScalar(c byte) bool {
	switch c {
	case '"':
		return s.str()
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return s.number()
	}
	return s.unexpected("a value")
}

// skipNested skips an object or array. It is not recursive, because the other party must not be able to
// grow the goroutine's stack, but keeps one bit for each open container. These bits outgrow the array only
// with limits above the default.
func (s *scanner) skipNested() bool {
	var few [(DefaultMaxDepth + EnvelopeDepth + 64) / 64]uint64
	objects := few[:] // bit n: the container at depth n is an object
	outside := s.depth
	c := s.b[s.i]
	for {
		// One value, which starts with c.
		switch c {
		case '{', '[':
			if s.depth >= s.limit {
				return s.tooDeep()
			}
			s.depth++
			s.i++
			word, bit := s.depth/64, uint64(1)<<(s.depth%64)
			if word >= len(objects) {
				objects = append(objects, 0)
			}
			if c == '[' {
				objects[word] &^= bit
				if c = s.peek(); c != ']' {
					continue
				}
			} else {
				objects[word] |= bit
				if c = s.peek(); c != '}' {
					if !s.skipKey(c) {
						return false
					}
					c = s.peek()
					continue
				}
			}
		default:
			if !s.skipScalar(c) {
				return false
			}
			c = s.peek()
		}
		// What follows the value, up to the next one.
		for {
			object := objects[s.depth/64]>>(s.depth%64)&1 != 0
			if c == ',' {
				s.i++
				c = s.peek()
				if object {
					if !s.skipKey(c) {
						return false
					}
					c = s.peek()
				}
				break
			}
			switch {
			case object && c != '}':
				return s.unexpected("',' or '}'")
			case !object && c != ']':
				return s.unexpected("',' or ']'")
			}
			s.i++
			s.depth--
			if s.depth == outside {
				return true
			}
			c = s.peek()
		}
	}
}

func (s *scanner) skipKey(c byte) bool {
	if c != '"' {
		return s.unexpected("a key")
	}
	return s.str() && s.colon()
}

func (s *scanner) literal(word string) bool {
	if len(s.b)-s.i < len(word) || string(s.b[s.i:s.i+len(word)]) != word {
		return s.unexpected("a value")
	}
	s.i += len(word)
	return true
}

// number skips the number at the cursor (RFC 8259 section 6).
func (s *scanner) number() bool {
	if s.b[s.i] == '-' {
		s.i++
	}
	if s.i < len(s.b) && s.b[s.i] == '0' {
		s.i++
	} else if !s.digits() {
		return false
	}
	if s.i < len(s.b) && s.b[s.i] == '.' {
		s.i++
		if !s.digits() {
			return false
		}
	}
	if s.i < len(s.b) && s.b[s.i]|0x20 == 'e' {
		s.i++
		if s.i < len(s.b) && (s.b[s.i] == '+' || s.b[s.i] == '-') {
			s.i++
		}
		return s.digits()
	}
	return true
}

func (s *scanner) digits() bool {
	start := s.i
	for s.i < len(s.b) && s.b[s.i]-'0' <= 9 {
		s.i++
	}
	if s.i == start {
		return s.unexpected("a digit")
	}
	return true
}
