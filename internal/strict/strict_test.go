package strict_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/strict"
)

type base struct {
	ID string `json:"id" mesh:"required"`
}

type item struct {
	Name  string `json:"name" mesh:"required"`
	Count *int8  `json:"count,omitempty"`
}

type order struct {
	base
	Items []item          `json:"items"`
	Extra *item           `json:"extra"`
	More  map[string]item `json:"more"`
	At    time.Time       `json:"at"`
	Big   int64           `json:"big,string"`
	Any   any             `json:"any"`
	Raw   json.RawMessage `json:"raw"`
	Blob  []byte          `json:"blob"`
	Next  *order          `json:"next"`
	Pair  [2]bool         `json:"pair"`
	Rates []float64       `json:"rates"`
	None  string          `json:"-"`
	loose string
	Plain string
}

func TestUnmarshal(t *testing.T) {
	_ = order{}.loose
	for text, want := range map[string]string{
		`{"id":"1"}`: "",
		`{"id":"1","items":[{"name":"a","count":1}],"extra":null,"more":{"x":{"name":"y"}},"at":"2026-11-30T00:00:00Z"}`:  "",
		`{"ID":"1","plain":"x","big":"7","any":{"z":[1]},"raw":[{}],"blob":"aGk=","next":{"id":"2"},"pair":[true,false]}`: "",
		`{}`:                                   "payload.id: missing",
		`null`:                                 "payload.id: missing",
		`{"id":null}`:                          "payload.id: missing",
		`[]`:                                   "payload: want an object, got []",
		`{"id":7}`:                             "payload.id: want a string, got 7",
		`{"id":"1","x":1}`:                     "payload.x: unknown field",
		`{"id":"1","None":"x"}`:                "payload.None: unknown field",
		`{"id":"1","-":"x"}`:                   "payload.-: unknown field",
		`{"id":"1","loose":"x"}`:               "payload.loose: unknown field",
		`{"id":"1","base":{}}`:                 "payload.base: unknown field",
		`{"id":"1","items":{}}`:                "payload.items: want an array, got {}",
		`{"id":"1","items":[{"name":"a"},{}]}`: "payload.items[1].name: missing",
		`{"id":"1","items":[{"name":"a","y":{}}]}`:      "payload.items[0].y: unknown field",
		`{"id":"1","items":[{"name":"a","count":300}]}`: "payload.items[0].count: want an integer (int8), got 300",
		`{"id":"1","items":[{"name":"a","count":"3"}]}`: `payload.items[0].count: want an integer (int8), got "3"`,
		`{"id":"1","extra":{}}`:                         "payload.extra.name: missing",
		`{"id":"1","more":{"a b":{"name":true}}}`:       `payload.more["a b"].name: want a string, got true`,
		`{"id":"1","at":"yesterday"}`:                   `payload.at: parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"`,
		`{"id":"1","next":{"id":"2","next":{}}}`:        "payload.next.next.id: missing",
		`{"id":"1","pair":[true,0]}`:                    "payload.pair[1]: want true or false, got 0",
		`{"id":"1","rates":[1,"x"]}`:                    `payload.rates[1]: want a number, got "x"`,
	} {
		var v order
		err := strict.Unmarshal([]byte(text), &v, "payload")
		if got := ""; err != nil {
			if got = err.Error(); got != want {
				t.Errorf("%s: %s, want %q", text, got, want)
			}
		} else if want != "" {
			t.Errorf("%s accepted, want %q", text, want)
		}
	}
}

// Types that are no structs have no fields to be unknown or missing.
func TestUnmarshalOthers(t *testing.T) {
	var n int
	if err := strict.Unmarshal([]byte(`7`), &n, "payload"); err != nil || n != 7 {
		t.Errorf("%d, %v", n, err)
	}
	if err := strict.Unmarshal([]byte(`"7"`), &n, "payload"); err == nil || err.Error() != `payload: want an integer (int), got "7"` {
		t.Error(err)
	}
	var raw json.RawMessage
	if err := strict.Unmarshal([]byte(`{"a":1}`), &raw, "payload"); err != nil || string(raw) != `{"a":1}` {
		t.Errorf("%s, %v", raw, err)
	}
	var ordered *order
	if err := strict.Unmarshal([]byte(`null`), &ordered, "payload"); err == nil || err.Error() != "payload.id: missing" {
		t.Error(err)
	}
	if err := strict.Unmarshal([]byte(`{"id":"1"}`), &ordered, "payload"); err != nil || ordered.ID != "1" {
		t.Error(ordered, err)
	}
	var nothing struct{}
	if err := strict.Unmarshal([]byte(`null`), &nothing, "payload"); err != nil {
		t.Error(err)
	}
	if err := strict.Unmarshal([]byte(`{"a":1}`), &nothing, "payload"); err == nil || err.Error() != "payload.a: unknown field" {
		t.Error(err)
	}
}
