package signal

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"
	"unicode/utf8"
)

// decodedKeys returns the keys of an object as encoding/json reads them, and false if b is none.
func decodedKeys(b []byte) (all []string, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') || !json.Valid(b) {
		return nil, false
	}
	for dec.More() {
		t, _ := dec.Token()
		all = append(all, t.(string))
		_ = dec.Decode(new(json.RawMessage))
	}
	return all, true
}

// The keys that are found without a parser are those that one finds, whatever is in the values.
func FuzzKeys(f *testing.F) {
	for _, text := range []string{
		`{}`, ` { } `, `{"a":1}`, "{\"a\"\r:\n1\t, \"b\" :null}",
		`{"a":{"b":1,"c":[{"d":2}]},"e":[[],{"f":{}}],"g":"h"}`,
		`{"a":"{","b":"}","c":"[\",\"","d":"\\","e":"\\\"","\"":"\\\\"}`,
		`{"a":1,"a":2,"A":3,"\u0061":4,"":5,"K":6}`,
		`{"a":"x","b":["y","z"],"c":{"d":"e"},"f":"g"}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		want, ok := decodedKeys(b)
		if !ok || !utf8.Valid(b) {
			return
		}
		if got := slices.Collect(keys(b)); !slices.Equal(got, want) {
			t.Fatalf("%q: %q, want %q", b, got, want)
		}
	})
}
