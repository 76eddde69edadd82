package wire

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"
)

// Message is one parsed mesh message. Its fields are subslices of the text it was parsed from, except
// that strings with escapes are decoded into new memory. An absent field is nil, an empty string is not.
type Message struct {
	Raw         []byte // the whole object
	Type        []byte
	RequestID   []byte
	SourceAgent []byte
	TargetAgent []byte
	Payload     []byte // JSON text
	// Meta, JSON text, and Timeout are `meta` and `timeout_ms`. They count if they are there once, an object and an integer of 1 or more;
	// else they are the application's own, and zero here. Detach does not copy Meta.
	Meta    []byte
	Timeout time.Duration

	payloadAt int // where in Raw
}

// Detach gives Raw, and Payload as a part of it, memory of their own, in which nothing is of the line around the message.
func (m *Message) Detach() {
	m.Raw = bytes.Clone(m.Raw)
	if m.Payload != nil {
		m.Payload = m.Raw[m.payloadAt:][:len(m.Payload):len(m.Payload)]
	}
}

// ParseMessage parses b, which must be exactly one JSON object in valid UTF-8 within lim, with a string
// `type`. The members `request_id`, `source_agent` and `target_agent` must be strings if present, and none
// of these four or `payload` may be duplicated or written in another case. White space around the object is
// allowed and not part of m.Raw.
//
// The error is an [*Error] (malformed, invalid_field, too_large or too_deep); m then holds what was read
// before it. m refers to b.
func ParseMessage(b []byte, lim Limits, m *Message) error {
	*m = Message{}
	lim = lim.withDefaults()
	s := scanner{b: b, limit: lim.MaxDepth, checked: lim.checked}
	if s.peek() != '{' {
		s.unexpected("a JSON object")
		return s.err
	}
	bad := s.message(m, lim)
	s.end()
	return firstError(s.err, bad)
}

// Check returns an [*Error] if b is not one JSON value, of any kind, as the parsers check the values that
// they skip. It is exported for benchmarks, which compare it with a parser.
func Check(b []byte, lim Limits) error {
	s := scanner{b: b, limit: lim.withDefaults().MaxDepth}
	s.skip()
	s.end()
	return firstError(s.err)
}

const messageKeys = keySet(1<<keyType | 1<<keyPayload | 1<<keyRequestID | 1<<keySourceAgent | 1<<keyTargetAgent)

// message reads the object at the cursor into m. If it is valid JSON but no valid message, the error is
// returned and not kept in s.err: it counts only if the type of the line turns out to have a message.
func (s *scanner) message(m *Message, lim Limits) (bad *Error) {
	start, outerLimit := s.i, s.limit
	s.outer, s.limit = s.depth, s.depth+lim.MaxDepth
	var seen keySet
	s.open()
	for s.next() {
		k := s.key
		switch k {
		case keyMeta:
			m.Meta = nil
			if v, once := s.optional(&seen); once && v.kind == '{' {
				m.Meta = s.raw(v)
			}
			continue
		case keyTimeout:
			m.Timeout = 0
			if v, once := s.optional(&seen); once {
				n, _ := s.integer(v)
				m.Timeout = time.Duration(min(n, maxTimeout)) * time.Millisecond
			}
			continue
		}
		if !messageKeys.has(k) {
			if err := s.skipOther(messageKeys); bad == nil {
				bad = err
			}
			continue
		}
		if seen.has(k) && bad == nil {
			bad = problem(CodeInvalidField, s.path(k), "present twice", s.i)
		}
		seen |= 1 << k
		v := s.value()
		if k == keyPayload {
			m.Payload, m.payloadAt = s.raw(v), v.start-start
			continue
		}
		if v.kind != '"' {
			if s.err == nil && bad == nil {
				bad = problem(CodeInvalidField, s.path(k), "want a string", v.start)
			}
			continue
		}
		switch k {
		case keyType:
			m.Type = s.text(v)
		case keyRequestID:
			m.RequestID = s.text(v)
		case keySourceAgent:
			m.SourceAgent = s.text(v)
		case keyTargetAgent:
			m.TargetAgent = s.text(v)
		}
	}
	s.outer, s.limit = 0, outerLimit
	if s.err != nil {
		return nil
	}
	m.Raw = s.b[start:s.i:s.i]
	switch {
	case len(m.Raw) > lim.MaxMessage:
		return tooLarge(s.where, "message", len(m.Raw), lim.MaxMessage)
	case bad == nil && !seen.has(keyType):
		return problem(CodeInvalidField, s.path(keyType), "missing", start)
	}
	return bad
}

// maxTimeout is the longest timeout, in milliseconds, so that no number is too large for a duration.
const maxTimeout = 365 * 24 * 60 * 60 * 1000

// optional reads the value of a member that counts if it is there once.
func (s *scanner) optional(seen *keySet) (v value, once bool) {
	once = !seen.has(s.key)
	*seen |= 1 << s.key
	v = s.value()
	return v, once && s.err == nil
}

// DecodeMeta decodes Message.Meta. It returns nil if a member is no string: then it is the application's own.
func DecodeMeta(text []byte) map[string]string {
	if text == nil {
		return nil
	}
	var members map[string]*string
	if json.Unmarshal(text, &members) != nil {
		return nil
	}
	meta := make(map[string]string, len(members))
	for name, value := range members {
		if value == nil {
			return nil
		}
		meta[name] = *value
	}
	return meta
}

// path returns the path of a member of the object being walked.
func (s *scanner) path(k key) string {
	if s.where == "" {
		return k.String()
	}
	return s.where + "." + k.String()
}

// MessageFields are the fields of a message to encode.
type MessageFields struct {
	Type        string
	RequestID   string // left out if empty, like the next two
	SourceAgent string
	TargetAgent string
	Payload     []byte // JSON text; left out if nil
	Meta        map[string]string
	Timeout     time.Duration // in milliseconds, rounded up
}

// AppendMessageFields appends f as a JSON object, without newline. It does not check the payload.
func AppendMessageFields(dst []byte, f MessageFields) []byte {
	dst = append(dst, `{"type":`...)
	dst = AppendString(dst, f.Type)
	dst = appendOptional(dst, `,"request_id":`, f.RequestID)
	dst = appendOptional(dst, `,"source_agent":`, f.SourceAgent)
	dst = appendOptional(dst, `,"target_agent":`, f.TargetAgent)
	if f.Timeout > 0 {
		dst = strconv.AppendInt(append(dst, `,"timeout_ms":`...), int64((f.Timeout+time.Millisecond-1)/time.Millisecond), 10)
	}
	if len(f.Meta) > 0 {
		dst = appendMeta(append(dst, `,"meta":`...), f.Meta)
	}
	if f.Payload != nil {
		dst = append(dst, `,"payload":`...)
		dst = append(dst, f.Payload...)
	}
	return append(dst, '}')
}

func appendMeta(dst []byte, meta map[string]string) []byte {
	next := byte('{')
	for _, name := range slices.Sorted(maps.Keys(meta)) {
		dst = AppendString(append(dst, next), name)
		dst = AppendString(append(dst, ':'), meta[name])
		next = ','
	}
	return append(dst, '}')
}

// appendOptional appends prefix and s as a JSON string, or nothing if s is empty.
func appendOptional(dst []byte, prefix, s string) []byte {
	if s == "" {
		return dst
	}
	return AppendString(append(dst, prefix...), s)
}
