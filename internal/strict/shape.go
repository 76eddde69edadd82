package strict

import (
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"sync"
)

// A form is what encoding/json takes a type for.
type form int

const (
	leaf   form = iota
	object      // a struct
	list        // a slice or an array
	dict        // a map
	itself      // a type that decodes itself
	unfit       // one that encoding/json never stores anything in, whatever the text, or would never come to the end of
)

// A shape is what is known of a type.
type shape struct {
	typ     reflect.Type // what is behind the pointers
	form    form
	pointer bool // there are pointers before it
	fields  *fields
	checked []check // the fields in which something may be missing

	// Whether there are such things in the type, at whatever depth:
	requires bool // required fields
	hidden   bool // what cannot be told from the value decoded: arrays that may have lost elements, required fields that hide a null
	fatal    bool // what encoding/json does not survive
}

// A check is a field that is required, or has something required in it, at whatever depth.
type check struct {
	*field
	deep bool
}

// looked reports whether anything may be wrong in a text of that shape although encoding/json has accepted it.
func (s *shape) looked() bool { return s.requires || s.hidden }

var shapes sync.Map // *shape by reflect.Type

func shapeOf(t reflect.Type) *shape {
	if s, ok := shapes.Load(t); ok {
		return s.(*shape)
	}
	s := &shape{
		requires: reaches(t, requiring),
		hidden:   reaches(t, hides),
		fatal: reaches(t, func(t reflect.Type) bool {
			return endless(t) || hasField(t, func(f *field) bool { return f.unusable })
		}),
	}
	s.typ, s.pointer = behind(t)
	s.form = formOf(s.typ, s.pointer)
	if s.form == object {
		s.fields = fieldsOf(s.typ)
		for i := range s.fields.list {
			f := &s.fields.list[i]
			if deep := reaches(f.typ, requiring); f.required || deep {
				s.checked = append(s.checked, check{f, deep})
			}
		}
	}
	shapes.Store(t, s)
	return s
}

// behind returns what the pointers of a type lead to, and whether there are any. Those without an end lead to a pointer.
func behind(t reflect.Type) (reflect.Type, bool) {
	if endless(t) {
		return t, true
	}
	pointer := t.Kind() == reflect.Pointer
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t, pointer
}

// endless reports whether a type consists of pointers only, as does type P *P.
func endless(t reflect.Type) bool {
	var seen []reflect.Type
	for t.Kind() == reflect.Pointer && !slices.Contains(seen, t) {
		seen = append(seen, t)
		t = t.Elem()
	}
	return t.Kind() == reflect.Pointer
}

func formOf(t reflect.Type, pointer bool) form {
	if decodesItself(t, pointer) {
		return itself
	}
	switch t.Kind() {
	case reflect.Struct:
		return object
	case reflect.Slice, reflect.Array:
		return list
	case reflect.Map:
		if keyed(t.Key()) {
			return dict
		}
		return unfit
	case reflect.Interface:
		if t.NumMethod() > 0 {
			return unfit
		}
	case reflect.Pointer, reflect.Chan, reflect.Func, reflect.UnsafePointer, reflect.Complex64, reflect.Complex128:
		return unfit
	}
	return leaf
}

// keyed reports whether the names of members can be keys of a type.
func keyed(t reflect.Type) bool {
	k := t.Kind()
	return k == reflect.String || k >= reflect.Int && k <= reflect.Uintptr || reflect.PointerTo(t).Implements(textUnmarshaler)
}

var (
	unmarshaler     = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// decodesItself reports whether encoding/json leaves a type to its own methods. It looks for those of a pointer to it: when there is
// one, or when the type has a name. A struct without a name may have methods, of what is embedded in it.
func decodesItself(t reflect.Type, pointer bool) bool {
	p := reflect.PointerTo(t)
	return (pointer || t.Name() != "") && (p.Implements(unmarshaler) || p.Implements(textUnmarshaler))
}

// requiring reports whether a type itself, not what is in it, has required fields.
func requiring(t reflect.Type) bool {
	return hasField(t, func(f *field) bool { return f.required })
}

// hides reports whether the values of a type may not show what the text has been: an array does not show that there have been more
// elements, and a type's own decoder may make something of null.
func hides(t reflect.Type) bool {
	return t.Kind() == reflect.Array || hasField(t, func(f *field) bool {
		return f.required && f.typ.Kind() != reflect.Pointer && reflect.PointerTo(f.typ).Implements(unmarshaler)
	})
}

func hasField(t reflect.Type, is func(*field) bool) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	list := fieldsOf(t).list
	for i := range list {
		if is(&list[i]) {
			return true
		}
	}
	return false
}

// reaches reports whether is is true for a type or for one of those that encoding/json finds inside of it. Types may contain
// themselves, by way of anything: type Tree map[string]Tree.
func reaches(t reflect.Type, is func(reflect.Type) bool) bool {
	type place struct {
		typ     reflect.Type
		pointer bool
	}
	seen := make(map[place]bool)
	var visit func(t reflect.Type, pointer bool) bool
	visit = func(t reflect.Type, pointer bool) bool {
		if seen[place{t, pointer}] || decodesItself(t, pointer) {
			return false
		}
		seen[place{t, pointer}] = true
		if is(t) {
			return true
		}
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
			return visit(t.Elem(), t.Kind() == reflect.Pointer)
		case reflect.Struct:
			return hasField(t, func(f *field) bool { return visit(f.typ, false) })
		}
		return false
	}
	return visit(t, false)
}
