//go:build linux || darwin

package interop

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// The parsers of base-only parties, which in places accept less than the protocol allows.

// baseMaxDepth is the deepest nesting that their parser reads.
const baseMaxDepth = 127

// strictObject reads one JSON object as the original's parser does.
func strictObject(text []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("not UTF-8")
	}
	if d := depth(text); d > baseMaxDepth {
		return nil, fmt.Errorf("%d levels deep", d)
	}
	var o map[string]json.RawMessage
	var any any // fails at numbers beyond a double
	if err := errors.Join(json.Unmarshal(text, &o), json.Unmarshal(text, &any)); err != nil {
		return nil, err
	}
	if o == nil {
		return nil, errors.New("null is no object")
	}
	return o, nil
}

// strictString reads a field that must be there and be a string.
func strictString(o map[string]json.RawMessage, name string, into *string) error {
	raw, ok := o[name]
	if !ok {
		return fmt.Errorf("no %s", name)
	}
	if len(raw) == 0 || raw[0] != '"' { // encoding/json would let null pass
		return fmt.Errorf("%s is not a string: %.50s", name, raw)
	}
	return json.Unmarshal(raw, into)
}

// strictEnvelope reads a line of the link.
func strictEnvelope(line []byte) (typ string, payload map[string]json.RawMessage, err error) {
	o, err := strictObject(line)
	if err == nil {
		err = strictString(o, "type", &typ)
	}
	if err == nil && len(o["payload"]) > 0 {
		_ = json.Unmarshal(o["payload"], &payload) // a payload that is no object counts as empty
	}
	return typ, payload, err
}

// strictMessage reads a message and returns it as the original forwards it: with five fields, of which the missing
// ones are empty, and without any others.
func strictMessage(text []byte) (string, error) {
	o, err := strictObject(text)
	if err != nil {
		return "", err
	}
	var m struct {
		Type        string          `json:"type"`
		RequestID   string          `json:"request_id"`
		SourceAgent string          `json:"source_agent"`
		TargetAgent string          `json:"target_agent"`
		Payload     json.RawMessage `json:"payload"`
	}
	if err := strictString(o, "type", &m.Type); err != nil {
		return "", err
	}
	for name, field := range map[string]*string{
		"request_id": &m.RequestID, "source_agent": &m.SourceAgent, "target_agent": &m.TargetAgent,
	} {
		if _, ok := o[name]; ok {
			if err := strictString(o, name, field); err != nil {
				return "", err
			}
		}
	}
	m.Payload = o["payload"]
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		return "", err
	}
	return string(bytes.TrimSpace(b.Bytes())), nil
}

// depth returns the nesting of JSON text.
func depth(text []byte) int {
	deepest, now, quoted := 0, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}
