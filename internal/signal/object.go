package signal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"
)

// Decode decodes b, a JSON object or null, into the struct at to, as encoding/json does, but by exact keys:
// unknown ones are ignored, while a field's name in another case, or twice, is an error.
//
// encoding/json by itself matches names in any case and takes the last of two; other readers match exactly, and
// some take the first. Then one text would say different things to the server that checks it and the client to
// which the server passes it on.
func Decode(b []byte, to any) error {
	err := json.Unmarshal(b, to)
	var wrong *json.UnmarshalTypeError
	if err != nil && !errors.As(err, &wrong) {
		return fmt.Errorf("not JSON: %w", err)
	}
	if bad := checkKeys(b, to); bad != nil {
		return bad
	}
	if wrong != nil {
		return fmt.Errorf("%s: not a %v", wrong.Field, wrong.Type)
	}
	return nil
}

// checkKeys returns an error if b, which must be JSON, is no object, or one that has a field of the struct at to twice, or in another case.
// Null is an object without fields.
func checkKeys(b []byte, to any) error {
	b = bytes.TrimLeft(b, space)
	if b[0] != '{' && b[0] != 'n' {
		return errors.New("not a JSON object")
	}
	names := fieldNames(to)
	seen := make([]bool, len(names))
	for key := range keys(b) {
		i := slices.IndexFunc(names, func(name string) bool { return strings.EqualFold(name, key) })
		switch {
		case i < 0:
		case key != names[i]:
			return fmt.Errorf("%s: written in another case, %+q", names[i], key)
		case seen[i]:
			return fmt.Errorf("%s: given twice", key)
		default:
			seen[i] = true
		}
	}
	return nil
}

const space = " \t\r\n"

// keys returns the keys of an object. Since the text is known to be JSON, strings and brackets are all that has to be looked at. What of
// a key is no UTF-8 stays as it is.
func keys(b []byte) iter.Seq[string] {
	return func(yield func(string) bool) {
		depth, value := 0, false // value: what follows is that of a member
		for i := 0; i < len(b); i++ {
			switch b[i] {
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			case ',':
				value = value && depth > 1
			case '"':
				end := i + stringLength(b[i:])
				if depth == 1 && !value {
					key := string(b[i+1 : end-1])
					if strings.Contains(key, `\`) {
						_ = json.Unmarshal(b[i:end], &key) // never fails
					}
					if value = true; !yield(key) {
						return
					}
				}
				i = end - 1
			}
		}
	}
}

// stringLength returns the length of the string at the beginning of b, with its quotes.
func stringLength(b []byte) int {
	for i := 1; ; i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
}

// fieldNames returns the names in JSON of the fields of the struct at to.
func fieldNames(to any) (names []string) {
	t := reflect.TypeOf(to).Elem()
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name != "" {
			names = append(names, name)
		}
	}
	return names
}
