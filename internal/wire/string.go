package wire

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	everyByte = 0x0101010101010101
	highBits  = 0x80 * everyByte

	longString  = 128 // bytes of a string after which str looks for its end first
	fewEscapes  = 4   // among them, for which that pays
	shortString = 32  // the same for checkedStr
)

// stops tests eight bytes at a time: it sets the high bit of each byte that is '"', '\\' or below 0x20 in x.
// A borrow can set further bits, but only above one that is right: the lowest bit is always right.
func stops(x uint64) uint64 {
	quote, slash := x^('"'*everyByte), x^('\\'*everyByte)
	return (controls(x) | (quote - everyByte) | (slash - everyByte)) &^ x
}

// controls is stops for bytes below 0x20 alone, but for those above 0x7F, which have to be masked.
func controls(x uint64) uint64 { return x - ' '*everyByte }

// plain reports whether there is no control character in text, and returns the disjunction of all bytes. It is for long strings; for short ones the
// call does not pay. The race detector, which would take most of the time of tests with long messages here, sees those bytes where they are read
// and copied.
//
//go:norace
func plain(text []byte) (all uint64, ok bool) {
	var bad uint64
	for ; len(text) >= 32; text = text[32:] {
		w, x := binary.LittleEndian.Uint64(text), binary.LittleEndian.Uint64(text[8:])
		y, z := binary.LittleEndian.Uint64(text[16:]), binary.LittleEndian.Uint64(text[24:])
		bad |= controls(w)&^w | controls(x)&^x | controls(y)&^y | controls(z)&^z
		all |= w | x | y | z
	}
	for _, c := range text {
		all |= uint64(c)
		if c < ' ' {
			return all, false
		}
	}
	return all, bad&highBits == 0
}

// str skips the string at the cursor and records whether it has escapes.
func (s *scanner) str() bool {
	if s.checked {
		return s.checkedStr()
	}
	b, i := s.b, s.i+1
	var all uint64 // disjunction of the bytes so far: has a high bit if one is not ASCII
	s.escaped = false
	escapes, long := 0, i+longString
	for {
		for ; i+8 <= len(b); i += 8 {
			x := binary.LittleEndian.Uint64(b[i:])
			stop := stops(x) & highBits
			all |= x
			if stop != 0 {
				i += bits.TrailingZeros64(stop) / 8
				break
			}
			if i >= long && escapes <= fewEscapes {
				long = len(b) // once
				if end, seen, ok := s.longStr(i); ok {
					i, all = end, all|seen
					break
				}
			}
		}
		if i >= len(b) {
			s.i = len(b)
			return s.fail(CodeMalformed, "unterminated string")
		}
		switch c := b[i]; {
		case c == '"':
			start := s.i
			s.i = i + 1
			return all&highBits == 0 || s.utf8(start, i)
		case c == '\\':
			s.escaped = true
			escapes++
			n := escapeLen(b[i:])
			if n == 0 {
				s.i = i
				return s.fail(CodeMalformed, "bad escape in a string")
			}
			i += n
		case c < ' ':
			s.i = i
			return s.fail(CodeMalformed, "control character in a string")
		default: // among the last seven bytes of the text
			all |= uint64(c)
			i++
		}
	}
}

// longStr returns the end of a string that goes on at i, and the disjunction of all bytes up to there; ok is false if something is wrong with it.
func (s *scanner) longStr(i int) (end int, all uint64, ok bool) {
	end = stringEnd(s.b, i)
	if end < 0 {
		return 0, 0, false
	}
	text := s.b[i:end]
	if all, ok = plain(text); !ok {
		return 0, 0, false
	}
	for {
		n := bytes.IndexByte(text, '\\')
		if n < 0 {
			return end, all, true
		}
		s.escaped = true
		length := escapeLen(text[n:])
		if length == 0 {
			return 0, 0, false
		}
		text = text[n+length:]
	}
}

// stringEnd returns where the quote is that ends a string of which b[i:] is the rest, which does not begin within an escape; -1 if there is none.
func stringEnd(b []byte, i int) int {
	for start := i; ; i++ {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return -1
		}
		i += n
		slashes := 0
		for i-slashes > start && b[i-slashes-1] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return i
		}
	}
}

// checkedStr is str for a text that was checked before.
func (s *scanner) checkedStr() bool {
	b, start := s.b, s.i+1
	i := start
	for ; i+8 <= len(b) && i < start+shortString; i += 8 {
		stop := stops(binary.LittleEndian.Uint64(b[i:])) & highBits
		if stop == 0 {
			continue
		}
		if i += bits.TrailingZeros64(stop) / 8; b[i] == '"' {
			s.escaped, s.i = false, i+1
			return true
		}
		break
	}
	end := stringEnd(b, i)
	if end < 0 {
		s.i = len(b)
		return s.fail(CodeMalformed, "unterminated string")
	}
	s.escaped = bytes.IndexByte(b[i:end], '\\') >= 0
	s.i = end + 1
	return true
}

// utf8 checks a part of the text. A check after the search for the string's end instead of within it
// doubles the speed on text that is not ASCII.
func (s *scanner) utf8(start, end int) bool {
	if utf8.Valid(s.b[start:end]) {
		return true
	}
	for s.i = start; ; {
		r, n := utf8.DecodeRune(s.b[s.i:end])
		if r == utf8.RuneError && n <= 1 {
			return s.fail(CodeMalformed, "invalid UTF-8")
		}
		s.i += n
	}
}

// escapeLen returns the length of the escape at the start of b, or 0 if there is none. An unpaired
// surrogate is an escape like any other, as RFC 8259 section 8.2 allows.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if hex4(b) >= 0 {
			return 6
		}
	}
	return 0
}

// hex4 returns the value of the escape \uXXXX at the start of b, or -1 if there is none.
func hex4(b []byte) rune {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	var r rune
	for _, c := range b[2:6] {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// appendUnescaped appends the text of a JSON string's contents, which must be valid. An unpaired surrogate
// becomes U+FFFD, as in encoding/json, because the text must be valid UTF-8.
func appendUnescaped(dst, in []byte) []byte {
	for i := 0; i < len(in); {
		c := in[i]
		if c != '\\' {
			dst = append(dst, c)
			i++
			continue
		}
		switch c = in[i+1]; c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r := hex4(in[i:])
			i += 6
			if utf16.IsSurrogate(r) {
				if r = utf16.DecodeRune(r, hex4(in[i:])); r != utf8.RuneError {
					i += 6
				}
			}
			dst = utf8.AppendRune(dst, r)
			continue
		}
		dst = append(dst, c)
		i += 2
	}
	return dst
}

// AppendString appends s as a JSON string. Invalid UTF-8 becomes U+FFFD.
func AppendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	done := 0 // s[:done] is written
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				dst = append(dst, s[done:i]...)
				dst = append(dst, "\uFFFD"...)
				done = i + 1
			}
			i += n
			continue
		}
		i++
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[done:i-1]...)
		done = i
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(append(dst, s[done:]...), '"')
}

// appendStrings appends a JSON array of strings.
func appendStrings(dst []byte, list []string) []byte {
	dst = append(dst, '[')
	for i, s := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(dst, s)
	}
	return append(dst, ']')
}
