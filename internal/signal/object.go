package signal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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
	if err := checkKeys(b, to); err != nil {
		return err
	}
	err := json.Unmarshal(b, to)
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong) && wrong.Field != "":
		return fmt.Errorf("%s: not a %v", wrong.Field, wrong.Type)
	}
	return fmt.Errorf("not JSON: %w", err)
}

// checkKeys returns an error if an object has a field of the struct at to twice, or in another case.
func checkKeys(b []byte, to any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	switch t, err := dec.Token(); {
	case err != nil:
		return fmt.Errorf("not JSON: %w", err)
	case t == nil:
		return nil
	case t != json.Delim('{'):
		return errors.New("not a JSON object")
	}
	names := fieldNames(to)
	seen := map[string]bool{}
	var value json.RawMessage
	for dec.More() {
		t, err := dec.Token()
		if err == nil {
			err = dec.Decode(&value)
		}
		if err != nil {
			return fmt.Errorf("not JSON: %w", err)
		}
		key, _ := t.(string)
		i := slices.IndexFunc(names, func(name string) bool { return strings.EqualFold(name, key) })
		switch {
		case i < 0:
		case key != names[i]:
			return fmt.Errorf("%s: written in another case, %+q", names[i], key)
		case seen[key]:
			return fmt.Errorf("%s: given twice", key)
		default:
			seen[key] = true
		}
	}
	return nil
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
