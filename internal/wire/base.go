package wire

import (
	"bytes"
	"strconv"
	"unicode/utf16"
)

// CheckBase tells whether base parties can read msg, which must be a valid message. Their parsers give up
// at BaseMaxDepth, at numbers beyond the range of a double, and at surrogates without their other half.
// A base sidecar then drops the message without a word; Python's parser, behind a base sidecar, never
// sees such a one, and an agent that does stops listening for good. The error is an [*Error].
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
			end := stringEnd(msg, i)
			if halfSurrogate(msg[i:end]) {
				return &Error{CodeMalformed, "half a surrogate pair, which base parties do not read, in the string at byte " + strconv.Itoa(i)}
			}
			i = end
		case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
			end := numberEnd(msg, i)
			if outOfRange(msg[i:end]) {
				return &Error{CodeMalformed, "a number out of the range that base parties read at byte " + strconv.Itoa(i)}
			}
			i = end
		default:
			i++
		}
	}
	return nil
}

// stringEnd returns the index behind the string that starts at i.
func stringEnd(b []byte, i int) int {
	for i++; i < len(b) && b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return min(i+1, len(b))
}

func numberEnd(b []byte, i int) int {
	for i < len(b) && (b[i]-'0' <= 9 || b[i] == '-' || b[i] == '+' || b[i] == '.' || b[i]|0x20 == 'e') {
		i++
	}
	return i
}

// outOfRange tells whether a number is none that a double can come near to.
func outOfRange(number []byte) bool {
	if len(number) < 300 && !bytes.ContainsAny(number, "eE") {
		return false // the largest double has 309 digits
	}
	_, err := strconv.ParseFloat(string(number), 64)
	return err != nil
}

// halfSurrogate tells whether there is one among a string's escapes.
func halfSurrogate(s []byte) bool {
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
		r := escapedUnit(s)
		s = s[6:]
		if !utf16.IsSurrogate(r) {
			continue
		}
		if utf16.DecodeRune(r, escapedUnit(s)) == '\uFFFD' {
			return true
		}
		s = s[6:]
	}
}

// escapedUnit returns the value of the escape \uXXXX that s starts with, 0 if it starts with none.
func escapedUnit(s []byte) rune {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0
	}
	v, err := strconv.ParseUint(string(s[2:6]), 16, 32)
	if err != nil {
		return 0
	}
	return rune(v)
}
