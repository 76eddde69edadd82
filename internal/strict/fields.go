package strict

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// A field is a member of an object that a struct provides for.
type field struct {
	name     string
	tagged   bool // the name is of a tag
	typ      reflect.Type
	index    []int // where it is in the struct
	required bool
	quoted   bool         // by the option string of encoding/json, so that the value is in a string
	box      reflect.Type // of a quoted one: a struct that has only such a field, named X
	unusable bool         // encoding/json cannot set it, since that takes a pointer that only the field's package may set
}

// forgets reports whether null makes what was there before be gone.
func (f *field) forgets() bool {
	switch f.typ.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Interface:
		return true
	}
	return reflect.PointerTo(f.typ).Implements(unmarshaler) // nobody knows
}

// fields are those of one struct, in its order.
type fields struct {
	list   []field
	byName map[string]int
}

// find returns the place in the list of the field for a name, in the case of the name or another one; -1 if there is none.
func (s *fields) find(name []byte) int {
	if i, ok := s.byName[string(name)]; ok {
		return i
	}
	folded := string(name)
	for i := range s.list {
		if strings.EqualFold(s.list[i].name, folded) {
			return i
		}
	}
	return -1
}

var known sync.Map // *fields by reflect.Type

// fieldsOf returns the fields of a struct that encoding/json would fill. Its rules for embedded ones are not those of Go.
func fieldsOf(t reflect.Type) *fields {
	if s, ok := known.Load(t); ok {
		return s.(*fields)
	}
	s := &fields{list: dominant(candidates(t)), byName: make(map[string]int)}
	for i, f := range s.list {
		s.byName[f.name] = i
	}
	known.Store(t, s)
	return s
}

// An embedded struct has fields that count as those of the struct around it.
type embedded struct {
	typ      reflect.Type
	index    []int
	unusable bool
	twice    bool // it is embedded more than once at its depth, so that its fields hide each other
}

// candidates returns all fields, among them those with the same name, of a struct and what is embedded in it, which may be itself.
func candidates(t reflect.Type) []field {
	var found []field
	visited := make(map[reflect.Type]bool)
	for level := []embedded{{typ: t}}; len(level) > 0; {
		var next []embedded
		for _, e := range level {
			if visited[e.typ] {
				continue
			}
			visited[e.typ] = true
			for i := range e.typ.NumField() {
				f, inner := e.field(i)
				if f != nil {
					found = append(found, *f)
				}
				if f != nil && e.twice {
					found = append(found, *f)
				}
				if inner != nil {
					next = add(next, *inner)
				}
			}
		}
		level = next
	}
	return found
}

func add(list []embedded, e embedded) []embedded {
	if i := slices.IndexFunc(list, func(other embedded) bool { return other.typ == e.typ }); i >= 0 {
		list[i].twice = true
		return list
	}
	return append(list, e)
}

// field returns a field of an embedded struct, or the struct that it embeds, or neither if encoding/json does not look at it.
func (e embedded) field(i int) (*field, *embedded) {
	sf := e.typ.Field(i)
	of := sf.Type
	if of.Name() == "" && of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	isStruct := of.Kind() == reflect.Struct
	if tag := sf.Tag.Get("json"); tag == "-" || !sf.IsExported() && !(sf.Anonymous && isStruct) {
		return nil, nil
	}
	name, options := parse(sf.Tag.Get("json"))
	index := append(slices.Clone(e.index), i)
	private := !sf.IsExported() && sf.Type.Kind() == reflect.Pointer
	if sf.Anonymous && isStruct && name == "" {
		return nil, &embedded{typ: of, index: index, unusable: e.unusable || private}
	}
	f := &field{
		name: cmp.Or(name, sf.Name), tagged: name != "", typ: sf.Type, index: index,
		required: sf.Tag.Get("mesh") == "required", unusable: e.unusable || private,
	}
	if slices.Contains(options, "string") && quotable(of.Kind()) {
		f.quoted = true
		f.box = reflect.StructOf([]reflect.StructField{{Name: "X", Type: sf.Type, Tag: `json:",string"`}})
	}
	return f, nil
}

func quotable(k reflect.Kind) bool {
	return k >= reflect.Bool && k <= reflect.Float64 || k == reflect.String
}

// parse returns the name of a tag, empty if encoding/json does not take it, and the options.
func parse(tag string) (string, []string) {
	parts := strings.Split(tag, ",")
	name := parts[0]
	if strings.ContainsFunc(name, func(c rune) bool {
		return !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", c) && !unicode.IsLetter(c) && !unicode.IsDigit(c)
	}) {
		name = ""
	}
	return name, parts[1:]
}

// dominant returns the fields that are left of those with the same names: that with the fewest structs around it, then that with a tag;
// none if there are two of these.
func dominant(found []field) []field {
	slices.SortStableFunc(found, func(a, b field) int {
		return cmp.Or(strings.Compare(a.name, b.name), cmp.Compare(len(a.index), len(b.index)), compareTags(a, b))
	})
	var left []field
	for len(found) > 0 {
		n := 1
		for n < len(found) && found[n].name == found[0].name {
			n++
		}
		if n == 1 || len(found[0].index) != len(found[1].index) || found[0].tagged != found[1].tagged {
			left = append(left, found[0])
		}
		found = found[n:]
	}
	slices.SortFunc(left, func(a, b field) int { return slices.Compare(a.index, b.index) })
	return left
}

func compareTags(a, b field) int {
	switch {
	case a.tagged == b.tagged:
		return 0
	case a.tagged:
		return -1
	}
	return 1
}
