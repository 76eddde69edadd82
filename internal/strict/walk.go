package strict

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A walker goes once through a text, which must be valid JSON, and so nested no deeper than encoding/json allows (10000), along the
// types that it is decoded into, up to the first thing that is wrong.
type walker struct {
	text    []byte
	at      int // what has been read of it
	name    string
	path    []step
	decoded bool // encoding/json has accepted the text, so that only what it does not mind can be wrong
}

func (w *walker) root(s *shape) *FieldError {
	if w.peek() == 'n' && s.form == object {
		return w.missing(s, nil)
	}
	if w.peek() == 'n' && s.form == itself {
		return w.checkItself(s)
	}
	return w.value(s)
}

// value reads a value.
func (w *walker) value(s *shape) *FieldError {
	c := w.peek()
	if w.decoded && !s.looked() || c == 'n' && (s.form != itself || s.pointer) {
		w.skip()
		return nil
	}
	switch s.form {
	case object:
		if c != '{' {
			return w.wrong("an object")
		}
		return w.object(s)
	case dict:
		if c != '{' {
			return w.wrong("an object")
		}
		return w.dict(s)
	case list:
		if isBytes(s.typ) && c != '[' {
			return w.checkBytes(s)
		}
		if c != '[' {
			return w.wrong("an array")
		}
		return w.list(s)
	case itself:
		return w.checkItself(s)
	case unfit:
		return w.fail(unusable)
	}
	return w.checkLeaf(s)
}

func (w *walker) object(s *shape) *FieldError {
	given := make([]bool, len(s.fields.list))
	for w.at++; w.more('}'); {
		raw := w.member()
		name := unquote(raw)
		i := s.fields.find(name)
		if i < 0 && w.decoded { // encoding/json knows better
			w.skip()
			continue
		}
		if i < 0 {
			w.path = append(w.path, step{kind: stepField, name: string(name)})
			return w.fail("unknown field")
		}
		f := &s.fields.list[i]
		if f.required {
			given[i] = !w.null(f) || given[i] && !f.forgets()
		}
		w.path = append(w.path, step{kind: stepField, name: f.name})
		if err := w.field(f); err != nil {
			return err
		}
		w.path = w.path[:len(w.path)-1]
	}
	return w.missing(s, given)
}

// null reports whether the value of a field, which is the next, is null.
func (w *walker) null(f *field) bool {
	if f.quoted && w.peek() == '"' {
		start := w.at
		s := unquote(w.skip())
		w.at = start
		return string(s) == "null"
	}
	return w.peek() == 'n'
}

// missing returns the error for the first required field of an object that has not been given; given is nil if none has.
func (w *walker) missing(s *shape, given []bool) *FieldError {
	for i := range s.fields.list {
		if f := &s.fields.list[i]; f.required && (given == nil || !given[i]) {
			w.path = append(w.path, step{kind: stepField, name: f.name})
			return w.fail("missing")
		}
	}
	return nil
}

// field reads the value of a field.
func (w *walker) field(f *field) *FieldError {
	switch {
	case w.decoded && f.quoted:
		w.skip()
		return nil
	case f.unusable:
		return w.fail(unusable)
	case f.quoted:
		return w.checkQuoted(f)
	}
	return w.value(shapeOf(f.typ))
}

func (w *walker) dict(s *shape) *FieldError {
	element := shapeOf(s.typ.Elem())
	for w.at++; w.more('}'); {
		raw := w.member()
		w.path = append(w.path, step{kind: stepKey, raw: raw})
		if !w.decoded {
			if err := w.checkKey(raw, s.typ.Key()); err != nil {
				return err
			}
		}
		if err := w.value(element); err != nil {
			return err
		}
		w.path = w.path[:len(w.path)-1]
	}
	return nil
}

func (w *walker) list(s *shape) *FieldError {
	element := shapeOf(s.typ.Elem())
	w.at++
	for i := 0; w.more(']'); i++ {
		if s.typ.Kind() == reflect.Array && i == s.typ.Len() {
			return w.fail("want an array of at most " + strconv.Itoa(i) + ", got more")
		}
		w.path = append(w.path, step{kind: stepElement, index: i})
		if err := w.value(element); err != nil {
			return err
		}
		w.path = w.path[:len(w.path)-1]
	}
	return nil
}

// checkLeaf reads a value of a type that holds no others, or any.
func (w *walker) checkLeaf(s *shape) *FieldError {
	t, start := s.typ, w.at
	value := w.skip()
	if storable(value, t) {
		return nil
	}
	if t.Kind() == reflect.Interface { // which takes all but one thing
		return w.fail("a number in it is out of range")
	}
	w.at = start
	return w.wrong(kindName(t))
}

// storable reports whether encoding/json accepts a value for a leaf. What it would do is done here, since calling it for each of a
// million numbers takes long; it is called for what may have more in it.
func storable(value []byte, t reflect.Type) bool {
	var err error
	switch k := t.Kind(); {
	case t == reflect.TypeFor[json.Number]() && isNumber(value):
	case k == reflect.Interface && isNumber(value):
		_, err = strconv.ParseFloat(string(value), 64)
	case k == reflect.String && t != reflect.TypeFor[json.Number]():
		return value[0] == '"'
	case k == reflect.Bool:
		return value[0] == 't' || value[0] == 'f'
	case k >= reflect.Int && k <= reflect.Int64:
		_, err = strconv.ParseInt(string(value), 10, t.Bits())
	case k >= reflect.Uint && k <= reflect.Uintptr:
		_, err = strconv.ParseUint(string(value), 10, t.Bits())
	case k == reflect.Float32 || k == reflect.Float64:
		_, err = strconv.ParseFloat(string(value), t.Bits())
	default:
		err = json.Unmarshal(value, reflect.New(t).Interface())
	}
	return err == nil
}

func isNumber(value []byte) bool { return value[0] == '-' || value[0] >= '0' && value[0] <= '9' }

func isBytes(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8
}

// checkBytes reads a value that is no array, for bytes.
func (w *walker) checkBytes(s *shape) *FieldError {
	start := w.at
	if value := w.skip(); w.decoded || json.Unmarshal(value, reflect.New(s.typ).Interface()) == nil {
		return nil
	}
	w.at = start
	return w.wrong("a string in base64")
}

func (w *walker) checkQuoted(f *field) *FieldError {
	start := w.at
	value := w.skip()
	boxed := append(append([]byte(`{"X":`), value...), '}')
	if json.Unmarshal(boxed, reflect.New(f.box).Interface()) == nil {
		return nil
	}
	t, pointer := behind(f.typ)
	w.at = start
	if decodesItself(t, pointer) {
		return w.fail(unusable)
	}
	return w.wrong(kindName(t) + " in a string")
}

// checkKey checks the name of a member of a map.
func (w *walker) checkKey(raw []byte, t reflect.Type) *FieldError {
	if !reflect.PointerTo(t).Implements(textUnmarshaler) {
		if t.Kind() == reflect.String || storable(unquote(raw), t) {
			return nil
		}
		return w.fail("want " + kindName(t) + " as a name")
	}
	only := append(append([]byte{'{'}, raw...), ":null}"...)
	if err := json.Unmarshal(only, reflect.New(reflect.MapOf(t, reflect.TypeFor[struct{}]())).Interface()); err != nil {
		return w.fail("as a name: " + speakable(err))
	}
	return nil
}

// checkItself reads a value of a type that decodes itself.
func (w *walker) checkItself(s *shape) *FieldError {
	start := w.at
	value := w.skip()
	if w.decoded {
		return nil
	}
	err := json.Unmarshal(value, reflect.New(s.typ).Interface())
	if err == nil {
		return nil
	}
	w.at = start
	if !reflect.PointerTo(s.typ).Implements(unmarshaler) && value[0] != '"' {
		return w.wrong("a string")
	}
	return w.fail(speakable(err))
}

// speakable returns what a type's own decoder says, unless that is of encoding/json.
func speakable(err error) string {
	var mismatch *json.UnmarshalTypeError
	if errors.As(err, &mismatch) || strings.Contains(err.Error(), "json: ") {
		return unusable
	}
	return cut(err.Error(), 200)
}

// wrong returns the error for a value, which is the next, of another type. want is empty if there is no name for what would be right.
func (w *walker) wrong(want string) *FieldError {
	if want == "" {
		return w.fail(unusable)
	}
	return w.fail("want " + want + ", got " + cut(w.skip(), 40))
}

func (w *walker) fail(text string) *FieldError {
	return &FieldError{pathOf(w.name, w.path), text}
}

func kindName(t reflect.Type) string {
	switch k := t.Kind(); {
	case t == reflect.TypeFor[json.Number]():
		return "a number"
	case k == reflect.String:
		return "a string"
	case k == reflect.Bool:
		return "true or false"
	case k >= reflect.Int && k <= reflect.Uintptr:
		return fmt.Sprintf("an integer (%v)", k)
	case k == reflect.Float32 || k == reflect.Float64:
		return "a number"
	}
	return ""
}

// peek returns the first byte of what follows.
func (w *walker) peek() byte {
	for {
		switch c := w.text[w.at]; c {
		case ' ', '\t', '\r', '\n':
			w.at++
		default:
			return c
		}
	}
}

// more goes to the next element or member, past the comma before it. If there is none, it goes past the end, and reports false.
func (w *walker) more(end byte) bool {
	c := w.peek()
	if c == ',' || c == end {
		w.at++
	}
	return c != end
}

// member reads the name of a member, and returns it as it is written.
func (w *walker) member() []byte {
	name := w.skip()
	w.peek()
	w.at++ // the colon
	return name
}

// skip reads a value, and returns it as it is written.
func (w *walker) skip() []byte {
	first := w.peek()
	start := w.at
	switch first {
	case '"':
		w.skipString()
	case '{', '[':
		w.skipNested()
	default:
		for w.at < len(w.text) && !endsLiteral(w.text[w.at]) {
			w.at++
		}
	}
	return w.text[start:w.at]
}

func endsLiteral(c byte) bool {
	switch c {
	case ',', ']', '}', ' ', '\t', '\r', '\n':
		return true
	}
	return false
}

func (w *walker) skipString() {
	for w.at++; w.text[w.at] != '"'; w.at++ {
		if w.text[w.at] == '\\' {
			w.at++
		}
	}
	w.at++
}

func (w *walker) skipNested() {
	for depth := 0; ; {
		switch w.text[w.at] {
		case '"':
			w.skipString()
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		w.at++
		if depth == 0 {
			return
		}
	}
}

// unquote returns what a string of a text means.
func unquote(raw []byte) []byte {
	inner := raw[1 : len(raw)-1]
	if bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner) {
		return inner
	}
	var s string
	_ = json.Unmarshal(raw, &s) // it is valid
	return []byte(s)
}
