package strict_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/chatixia-ai/mesh/internal/strict"
)

// The types of the fuzz test. What is required is a type parameter, so that a pointer in its place shows what has been absent or null.
type (
	mixed[S, N any] struct {
		head[S]
		*Tail[N]
		Kind  Name                    `json:"kind"`
		Items []*part[S, N]           `json:"items"`
		More  map[int8]*part[S, N]    `json:"more"`
		Named map[string]*mixed[S, N] `json:"named"`
		Next  *mixed[S, N]            `json:"next"`
		Any   any                     `json:"any"`
		At    *time.Time              `json:"at"`
		Raw   json.RawMessage         `json:"raw"`
		Blob  []byte                  `json:"blob"`
	}
	head[S any] struct {
		ID S `json:"id" mesh:"required"`
	}
	Tail[N any] struct {
		N    N   `json:"n" mesh:"required"`
		Kind int `json:"-"`
		K    int `json:"kind"`
	}
	part[S, N any] struct {
		Name  S      `json:"name" mesh:"required"`
		Count N      `json:"count" mesh:"required"`
		Pair  [2]int `json:"pair"`
	}
	quoted struct {
		N *int16  `json:"n,string"`
		S string  `json:"s,string"`
		F float32 `json:"f,string"`
		B bool    `json:"b,string"`
	}
)

func FuzzUnmarshal(f *testing.F) {
	for _, text := range []string{
		`{}`, `null`, `{"id":"1","n":0,"items":[{"name":"a","count":1,"pair":[1,2,3]}]}`, `{"ID":"","N":1,"next":{"id":"2","n":null}}`,
		`{"id":"","n":0,"more":{"1":{"name":"","count":0},"x":null}}`, `{"named":{"a":{"id":"x"}}}`, `{"a":{"b":{}}}`, `[[],[[]]]`,
		`{"n":"7","s":"\"a\"","f":"1e3","b":"true"}`, `{"n":"null"}`, `{"1":[2,3]}`, `[1,2,3]`, `{"id":"","n":0,"any":[1e400],"at":"x","raw":null,"blob":"aGk="}`,
		`{"x":0}`, `{"Self":{}}`, `{"V":0,"more":[{}]}`, `1e400`, `"x"`, `{"kind":"x","\u212aind":1}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !json.Valid(text) {
			if strict.Unmarshal(text, new(mixed[string, int]), "payload") == nil {
				t.Errorf("%q is not JSON", text)
			}
			return
		}
		compare[mixed[string, int], mixed[*string, *int]](t, text)
		compare[map[string]part[odd, float64], map[string]*part[*odd, *float64]](t, text)
		compare[[]part[any, []int], []*part[*any, *[]int]](t, text)
		compare[quoted, quoted](t, text)
		compare[map[int]quoted, map[int]quoted](t, text)
		compare[map[uint8][2]int, map[uint8][2]int](t, text)
		compare[Tree, Tree](t, text)
		compare[List, List](t, text)
		compare[Nodes, NodesOf[*int]](t, text)
		compare[any, any](t, text)
		if err := strict.Unmarshal(text, new(Ptr), "payload"); (err == nil) != (string(bytes.TrimSpace(text)) == "null") {
			t.Errorf("%s: %v", text, err)
		}
	})
}

// compare checks what strict makes of a text for a type against what encoding/json does. Shadow is the type with pointers as required
// fields.
func compare[T, Shadow any](t *testing.T, text []byte) {
	t.Helper()
	var got, want T
	err := strict.Unmarshal(text, &got, "payload")
	refused := decodeStrictly(text, &want)
	if err == nil {
		if refused != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%T %s: %+v, want %+v, %v", got, text, got, want, refused)
		}
	} else {
		checkError(t, text, err, refused)
	}
	var shadow Shadow
	if refused != nil || decodeStrictly(text, &shadow) != nil || repeats(text) {
		return
	}
	if missing := err != nil && strings.HasSuffix(err.Error(), ": missing"); err == nil && lacks(reflect.ValueOf(shadow)) || missing && !lacks(reflect.ValueOf(shadow)) {
		t.Errorf("%T %s: %v, but %+v", got, text, err, shadow)
	}
}

func checkError(t *testing.T, text []byte, err, refused error) {
	t.Helper()
	at, is := err.(*strict.FieldError)
	if !is || !strings.HasPrefix(at.Path, "payload") || len(at.Path) > 1024 || len(at.Text) > 300 || at.Text == "" || !utf8.ValidString(at.Error()) {
		t.Fatalf("%s: %#v", text, err)
	}
	if refused == nil && at.Text != "missing" && !strings.HasPrefix(at.Text, "want an array of at most") {
		t.Errorf("%s: %v, though encoding/json accepts it", text, err)
	}
	if strings.Contains(at.Text, "strict_test.") && !bytes.Contains(text, []byte("strict_test.")) || strings.Contains(at.Text, "json: ") && !bytes.Contains(text, []byte("json: ")) {
		t.Errorf("%s: %v", text, err)
	}
}

func decodeStrictly(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// lacks reports whether a required field, which is a pointer, is nil.
func lacks(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer:
		return !v.IsNil() && lacks(v.Elem())
	case reflect.Slice:
		for i := range v.Len() {
			if lacks(v.Index(i)) {
				return true
			}
		}
	case reflect.Map:
		for values := v.MapRange(); values.Next(); {
			if lacks(values.Value()) {
				return true
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			tail := f.Anonymous && f.Type.Kind() == reflect.Pointer && f.Name == "Tail" // has required ones
			if (tail || f.Tag.Get("mesh") == "required" && f.Type.Kind() == reflect.Pointer) && v.Field(i).IsNil() || lacks(v.Field(i)) {
				return true
			}
		}
	}
	return false
}

// repeats reports whether an object has a member twice, in the same case or not. What is said twice is merged, which a shadow does not
// show.
func repeats(text []byte) bool {
	d := json.NewDecoder(bytes.NewReader(text))
	var open []map[string]bool // nil for arrays
	name := false
	for {
		token, err := d.Token()
		if err != nil {
			return false
		}
		switch token {
		case json.Delim('{'):
			open, name = append(open, make(map[string]bool)), true
			continue
		case json.Delim('['):
			open, name = append(open, nil), false
			continue
		case json.Delim('}'), json.Delim(']'):
			open = open[:len(open)-1]
		default:
			if s, is := token.(string); is && name {
				s = strings.ToLower(strings.ToUpper(s))
				if open[len(open)-1][s] {
					return true
				}
				open[len(open)-1][s] = true
				name = false
				continue
			}
		}
		name = len(open) > 0 && open[len(open)-1] != nil
	}
}
