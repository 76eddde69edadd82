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

	longString = 128 // bytes of a string after which str calls plain
)

// stops tests eight bytes at a time: it sets the high bit of each byte that is '"', '\\' or below 0x20 in x.
// A borrow can set further bits, but only above one that is right: the lowest bit is always right.
func stops(x uint64) uint64 {
	quote, slash := x^('"'*everyByte), x^('\\'*everyByte)
	return ((x - ' '*everyByte) | (quote - everyByte) | (slash - everyByte)) &^ x
}

// plain returns the number of bytes at the start of text, a multiple of 32, among which stops finds none,
// and the disjunction of all of them. It is for long strings; for short ones the call does not pay. The race detector, which would
// take most of the time of tests with long messages here, sees those bytes where they are read and copied.
//
//go:norace
func plain(text []byte) (n int, all uint64) {
	for ; len(text) >= 32; text = text[32:] {
		w, x := binary.LittleEndian.Uint64(text), binary.LittleEndian.Uint64(text[8:])
		y, z := binary.LittleEndian.Uint64(text[16:]), binary.LittleEndian.Uint64(text[24:])
		if (stops(w)|stops(x)|stops(y)|stops(z))&highBits != 0 {
			break
		}
		all |= w | x | y | z
		n += 32
	}
	return n, all
}

// str skips the string at the cursor and records whether it has escapes.
func (s *scanner) str() bool {
	if s.checked {
		return s.checkedStr()
	}
	b, i := s.b, s.i+1
	var all uint64 // disjunction of the bytes so far: has a high bit if one is not ASCII
	s.escaped = false
	for {
		for from := i; i+8 <= len(b); {
			x := binary.LittleEndian.Uint64(b[i:])
			stop := stops(x) & highBits
			all |= x
			if stop != 0 {
				i += bits.TrailingZeros64(stop) / 8
				break
			}
			if i += 8; i-from == longString {
				n, seen := plain(b[i:])
				i, all = i+n, all|seen
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

const (
	checkedWindow = 4 << 10 // how far checkedStr looks for the end of a string before it looks for escapes
	checkedWords  = 4       // how many words of eight bytes it looks at before that
)

// checkedStr is str for a text that was checked before.
func (s *scanner) checkedStr() bool {
	b, i := s.b, s.i+1
	s.escaped = false
	quote := 0 // the next one, unless i is behind it
	for i < len(b) {
		for n := 0; n < checkedWords && i+8 <= len(b); n++ {
			if stop := stops(binary.LittleEndian.Uint64(b[i:])) & highBits; stop != 0 {
				i += bits.TrailingZeros64(stop) / 8
				break
			}
			i += 8
		}
		if i < len(b) && b[i] == '"' {
			s.i = i + 1
			return true
		}
		if i < len(b) && b[i] == '\\' {
			s.escaped = true
			i += len(`\"`)
			continue
		}
		if i >= quote {
			if quote = min(len(b), i+checkedWindow); i < quote {
				if n := bytes.IndexByte(b[i:quote], '"'); n >= 0 {
					quote = i + n
				}
			}
		}
		if n := bytes.IndexByte(b[i:quote], '\\'); n >= 0 {
			i += n
		} else {
			i = quote
		}
	}
	s.i = len(b)
	return s.fail(CodeMalformed, "unterminated string")
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
