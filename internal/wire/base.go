package wire

import (
	"bytes"
	"strconv"
	"unicode/utf16"
)

// CheckBase returns an [*Error] if base parties cannot read msg, which must be a valid message. Their
// parsers reject more than BaseMaxDepth levels, numbers beyond the range of a double, and unpaired
// surrogates. A base sidecar drops such a message silently. A base agent in Python, to which it would be
// passed on, would stop listening for good.
func CheckBase(msg []byte) error {
	depth := 0
	for i := 0; i < len(msg); {
		switch c := msg[i]; c {
		case '{', '[':
			if depth++; depth > BaseMaxDepth {
				return &Error{CodeTooDeep, "nested deeper than the " + strconv.Itoa(BaseMaxDepth) + " levels that base parties read"}
			}
			i++
		case '}', ']':
			depth--
			i++
		case '"':
			end := stringEnd(msg, i+1) + 1
			if end == 0 { // it was to be valid
				return &Error{CodeMalformed, "unterminated string"}
			}
			if unpairedSurrogate(msg[i:end]) {
				return &Error{CodeMalformed, "unpaired surrogate, which base parties do not read, in the string at byte " + strconv.Itoa(i)}
			}
			i = end
		case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
			end := numberEnd(msg, i)
			if outOfRange(msg[i:end]) {
				return &Error{CodeMalformed, "number out of the range that base parties read at byte " + strconv.Itoa(i)}
			}
			i = end
		default:
			i++
		}
	}
	return nil
}

// numberEnd returns the index after the number that starts at i.
func numberEnd(b []byte, i int) int {
	for i < len(b) && (b[i]-'0' <= 9 || b[i] == '-' || b[i] == '+' || b[i] == '.' || b[i]|0x20 == 'e') {
		i++
	}
	return i
}

// outOfRange reports whether a number is beyond the range of a double.
func outOfRange(number []byte) bool {
	if len(number) < 300 && !bytes.ContainsAny(number, "eE") {
		return false // the largest double has 309 digits
	}
	_, err := strconv.ParseFloat(string(number), 64)
	return err != nil
}

// unpairedSurrogate reports whether an escape of the string is a surrogate without its pair.
func unpairedSurrogate(s []byte) bool {
	for {
		at := bytes.IndexByte(s, '\\')
		if at < 0 {
			return false
		}
		s = s[at:]
		if s[1] != 'u' {
			s = s[2:]
			continue
		}
		r := hex4(s)
		s = s[6:]
		if !utf16.IsSurrogate(r) {
			continue
		}
		if utf16.DecodeRune(r, hex4(s)) == '\uFFFD' {
			return true
		}
		s = s[6:]
	}
}
