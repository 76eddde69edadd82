package strict_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/strict"
)

type Inner struct {
	X int `json:"x" mesh:"required"`
}

type inner struct {
	X int `json:"x" mesh:"required"`
}

type Name string

type hidden int

type (
	Tree           map[string]Tree
	List           []List
	Ptr            *Ptr
	Nodes          = NodesOf[int]
	NodesOf[V any] struct {
		V    V             `mesh:"required"`
		More []*NodesOf[V] `json:"more"`
		*Self
	}
	Self struct{ *Self }
)

// odd refuses some texts, and makes something of null.
type odd string

func (o *odd) UnmarshalJSON(text []byte) error {
	if string(text) == `"number"` {
		return json.Unmarshal([]byte(`"x"`), new(int))
	}
	if *o = odd(text); *o == `"bad"` {
		return errors.New("bad: " + strings.Repeat("b", 1<<20))
	}
	return nil
}

// check decodes texts into values of type T. What is wanted is the error, or the value as JSON after "= ", or any value if it is empty.
func check[T any](t *testing.T, cases map[string]string) {
	t.Helper()
	for text, want := range cases {
		var v T
		err := strict.Unmarshal([]byte(text), &v, "payload")
		got := ""
		switch value, is := strings.CutPrefix(want, "= "); {
		case err != nil:
			got = err.Error()
		case is:
			b, _ := json.Marshal(v)
			got, want = string(b), value
		}
		if got != want {
			t.Errorf("%T %s: %q, want %q", v, text, got, want)
		}
	}
}

func TestEmbedded(t *testing.T) {
	check[struct {
		Inner `json:"inner"`
	}](t, map[string]string{
		`{"inner":{"x":0}}`: "", `{}`: "", `{"inner":{}}`: "payload.inner.x: missing", `{"x":1}`: "payload.x: unknown field",
	})
	check[struct {
		*Inner `json:"inner"`
		Y      int
	}](t, map[string]string{`{"y":1}`: "", `{"inner":{}}`: "payload.inner.x: missing", `{"inner":{"x":0}}`: ""})
	check[struct {
		*Inner
		Y int
	}](t, map[string]string{`{"y":1}`: "payload.x: missing", `{"x":0}`: `= {"x":0,"Y":0}`, `{"x":null}`: "payload.x: missing"})
	check[struct {
		Name
		hidden
		Count int `mesh:"required"`
	}](t, map[string]string{
		`{"Name":"n","Count":0}`: `= {"Name":"n","Count":0}`, `{"Name":"n","Count":1}`: "", `{"Name":7,"Count":1}`: "payload.Name: want a string, got 7",
		`{"hidden":1,"Count":1}`: "payload.hidden: unknown field",
	})
	check[struct {
		A int `json:"x"`
		Inner
	}](t, map[string]string{`{"x":1}`: `= {"x":1}`, `{"x":0}`: "", `{}`: ""})
	check[struct {
		Untagged
		Other
		Y int
	}](t, map[string]string{`{}`: "", `{"y":0}`: "", `{"x":1}`: "payload.x: unknown field"})
	check[struct {
		Untagged
		Tagged
		Y int
	}](t, map[string]string{`{"X":0,"Y":0}`: `= {"X":0,"Y":0}`, `{}`: "payload.X: missing"})
	check[struct{ inner }](t, map[string]string{`{"x":0}`: "", `{}`: "payload.x: missing"})
	check[struct {
		Left
		Right
	}](t, map[string]string{`{}`: "", `{"x":1}`: "payload.x: unknown field"}) // Untagged is there twice
	check[Self](t, map[string]string{`{}`: "", `{"Self":1}`: "payload.Self: unknown field"})
}

// Fields of the same name. That they hide each other is the point.
type (
	Untagged struct {
		X int `mesh:"required"`
	}
	Other struct {
		X int `mesh:"required"`
	}
	Tagged struct {
		A int `json:"X" mesh:"required"`
	}
	Left  struct{ Untagged }
	Right struct{ Untagged }
)

// What encoding/json cannot set, or panics at.
func TestUnusable(t *testing.T) {
	check[struct {
		*inner
		Y int
	}](t, map[string]string{`{"x":1}`: "payload.x: cannot be used", `{"x":null}`: "payload.x: cannot be used"})
	check[struct {
		*inner `json:"inner"`
		Y      int
	}](t, map[string]string{`{"y":1}`: "", `{"inner":null}`: "payload.inner: cannot be used", `{"inner":{"x":1}}`: "payload.inner: cannot be used"})
	check[struct{ P Ptr }](t, map[string]string{`{"P":null}`: "", `{}`: "", `{"P":1}`: "payload.P: cannot be used"})
	check[Ptr](t, map[string]string{`null`: "", `[]`: "payload: cannot be used", `]`: "payload: not valid JSON"})
	check[struct {
		F func()
		E error
		C chan int
		K map[bool]int
	}](t, map[string]string{
		`{"F":1}`: "payload.F: cannot be used", `{"E":"x"}`: "payload.E: cannot be used", `{"C":{}}`: "payload.C: cannot be used",
		`{"K":{}}`: "payload.K: cannot be used", `{"F":null,"E":null,"C":null,"K":null}`: "",
	})
}

type (
	odds struct {
		//lint:ignore SA5008 this is the name - on purpose
		D int `json:"-,"`
		R int `mesh:"required"`
		//lint:ignore SA5008 not a name that encoding/json takes
		S int `json:"a'b"`
		T int `json:"a b"`
	}
	inStrings struct {
		N *int   `json:"n,string" mesh:"required"`
		S string `json:"s,string"`
		//lint:ignore SA5008 which means nothing
		L []int `json:"l,string"`
	}
)

func TestTags(t *testing.T) {
	check[odds](t, map[string]string{
		`{"-":1,"R":0}`: `= {"-":1,"R":0,"S":0,"a b":0}`, `{"D":1,"R":0}`: "payload.D: unknown field", `{"S":1,"R":0,"a b":2}`: "",
		`{"a'b":1,"R":0}`: "payload.a'b: unknown field",
	})
	check[inStrings](t, map[string]string{
		`{"n":"7","s":"\"a\"","l":[1]}`: "", `{"n":"0"}`: "", `{"n":"null"}`: "payload.n: missing", `{"n":"\u006eull"}`: "payload.n: missing",
		`{"n":null}`: "payload.n: missing", `{"n":7}`: "payload.n: want an integer (int) in a string, got 7",
		`{"n":"x"}`: `payload.n: want an integer (int) in a string, got "x"`, `{"n":"1","s":"a"}`: `payload.s: want a string in a string, got "a"`,
		`{"n":""}`: `payload.n: want an integer (int) in a string, got ""`, `{"n":"1","l":["x"]}`: `payload.l[0]: want an integer (int), got "x"`,
	})
	check[struct {
		KQ int `mesh:"required"`
		Kq int
	}](t, map[string]string{
		`{"KQ":0,"Kq":1}`: `= {"KQ":0,"Kq":1}`, `{"kQ":0}`: "", `{"Kq":0}`: "payload.KQ: missing", "{\"\u212aQ\":0}": "", `{"\u006bQ":0}`: "",
		`{"KQ\t":0}`: `payload["KQ\t"]: unknown field`,
	})
}

func TestRecursive(t *testing.T) {
	check[Tree](t, map[string]string{`{"a":{"b":{}}}`: `= {"a":{"b":{}}}`, `{"a":{"b":[]}}`: `payload["a"]["b"]: want an object, got []`})
	check[List](t, map[string]string{`[[],[[]]]`: `= [[],[[]]]`, `[[],[7]]`: "payload[1][0]: want an array, got 7"})
	check[Nodes](t, map[string]string{
		`{"V":0,"more":[{"V":0},null,{"V":0,"more":[]}]}`: "", `{"V":1,"more":[{"V":0},{"more":[]}]}`: "payload.more[1].V: missing",
	})
	check[map[string]Ptr](t, map[string]string{`{"a":null}`: "", `{"a":null,"b":0}`: `payload["b"]: cannot be used`})
}

func TestMaps(t *testing.T) {
	check[struct {
		M map[int8]int
		T map[netip.Addr]string
	}](t, map[string]string{
		`{"M":{"1":1,"-2":2}}`: "", `{"M":{"a":1}}`: `payload.M["a"]: want an integer (int8) as a name`,
		`{"M":{"":1}}`: `payload.M[""]: want an integer (int8) as a name`, `{"M":{"300":1}}`: `payload.M["300"]: want an integer (int8) as a name`, `{"M":{"1":"1"}}`: `payload.M["1"]: want an integer (int), got "1"`,
		`{"T":{"::1":"x"}}`: "", `{"T":{"x":"x"}}`: `payload.T["x"]: as a name: ParseAddr("x"): unable to parse IP`,
	})
}

func TestArrays(t *testing.T) {
	check[struct{ A [2]int }](t, map[string]string{
		`{"A":[1,2]}`: "", `{"A":[1]}`: `= {"A":[1,0]}`, `{"A":[]}`: "", `{"A":null}`: "", `{"A":[1,2,3]}`: "payload.A: want an array of at most 2, got more",
	})
	check[[]*[1]Inner](t, map[string]string{`[[]]`: "", `[[{"x":0}],[{}]]`: "payload[1][0].x: missing", `[[{"x":0},1]]`: "payload[0]: want an array of at most 1, got more"})
	check[[]byte](t, map[string]string{
		`"aGk="`: `= "aGk="`, `[104,105]`: `= "aGk="`, `[104,256]`: "payload[1]: want an integer (uint8), got 256",
		`"a"`: `payload: want a string in base64, got "a"`, `7`: "payload: want a string in base64, got 7",
	})
}

// Types that decode themselves are asked, and what they say of Go types is kept.
func TestOwnDecoders(t *testing.T) {
	check[struct {
		O  odd  `mesh:"required"`
		P  *odd `json:"p"`
		At time.Time
		IP netip.Addr
	}](t, map[string]string{
		`{"O":7}`: "", `{"O":null}`: "payload.O: missing", `{}`: "payload.O: missing", `{"O":"number"}`: "payload.O: cannot be used",
		`{"O":"bad"}`:        "payload.O: bad: " + strings.Repeat("b", 195) + "…",
		`{"O":1,"p":"bad"}`:  "payload.p: bad: " + strings.Repeat("b", 195) + "…",
		`{"O":1,"IP":"::1"}`: "", `{"O":1,"IP":7}`: "payload.IP: want a string, got 7", `{"O":1,"p":null,"At":null}`: "",
	})
	check[struct { // without a name, so that encoding/json does not look for methods
		In struct{ time.Time }
		By *struct{ time.Time }
	}](t, map[string]string{
		`{"By":"2026-11-30T00:00:00Z"}`: "", `{"In":"2026-11-30T00:00:00Z"}`: `payload.In: want an object, got "2026-11-30T00:00:00Z"`,
	})
	check[any](t, map[string]string{`[1e400]`: "payload: a number in it is out of range", `[1]`: "= [1]"})
	check[json.Number](t, map[string]string{`"x"`: `payload: want a number, got "x"`, `1e400`: "", `true`: "payload: want a number, got true"})
}

// What is given twice is merged, and null takes away only what it sets to nil.
func TestTwice(t *testing.T) {
	check[struct {
		A  int  `mesh:"required"`
		Q  *int `mesh:"required"`
		In Inner
	}](t, map[string]string{
		`{"A":0,"A":null,"Q":1}`: "", `{"A":1,"A":null,"Q":1}`: "", `{"A":0,"Q":1,"Q":null}`: "payload.Q: missing", `{"A":0,"Q":null,"Q":0}`: "",
		`{"A":"x","A":1,"Q":0}`: `payload.A: want an integer (int), got "x"`, `{"A":1,"Q":"x","Q":0}`: `payload.Q: want an integer (int), got "x"`,
	})
}

func TestInvalid(t *testing.T) {
	for _, text := range []string{"", " ", "{", `{"x":1}{`, `{"x":1} 2`, `{"x":1}]`, strings.Repeat("[", 1<<20), `{"x`, `{"x":0`} {
		if err := strict.Unmarshal([]byte(text), new(Inner), "payload"); err == nil || err.Error() != "payload: not valid JSON" {
			t.Errorf("%.20q: %v", text, err)
		}
		var in Inner // whose decoder must not have kept anything
		if err := strict.Unmarshal([]byte(" {\"x\": 3}\r\n\t"), &in, "payload"); err != nil || in.X != 3 {
			t.Errorf("after %.20q: %v, %v", text, in, err)
		}
	}
}

// Peers choose names, values and depths.
func TestErrorsAreShort(t *testing.T) {
	long := strings.Repeat("n", 9<<20)
	check[Inner](t, map[string]string{
		`{"` + long + `":1}`:         "payload." + long[:64] + "…: unknown field",
		`{"x":"` + long + `"}`:       `payload.x: want an integer (int), got "` + long[:39] + "…",
		`{"a\nb\u202e":1}`:           `payload["a\nb\u202e"]: unknown field`,
		`{"` + "\xff" + `":1}`:       "payload.\ufffd: unknown field",
		`{"x":"` + "\xff\x7f" + `"}`: "payload.x: want an integer (int), got \"\ufffd\x7f\"",
	})
	check[map[string]int](t, map[string]string{`{"` + long + `":"x"}`: `payload["` + long[:64] + `…"]: want an integer (int), got "x"`})
	for _, name := range []string{long[:100], "é", `\u0001`} {
		text := strings.Repeat(`{"`+strings.Repeat(name, 65)+`":`, 500) + "7" + strings.Repeat("}", 500)
		err := strict.Unmarshal([]byte(text), new(Tree), "payload").(*strict.FieldError)
		if len(err.Path) > 1024 || !strings.HasPrefix(err.Path, "payload[") || !strings.HasSuffix(err.Path, `"]`) || !strings.Contains(err.Path, "…") {
			t.Error(len(err.Path), err)
		}
	}
}

// The walker goes through a text once, however deep it is. Once for each level would take minutes.
func TestDeep(t *testing.T) {
	const depth = 500
	text := strings.Repeat(`{"V":1,"more":[`, depth/2) + strings.Repeat(`{"V":1},`, 4<<20/8) + `{"V":%}` + strings.Repeat(`]}`, depth/2)
	for last, want := range map[string]string{"0": "", `"x"`: `].V: want an integer (int), got "x"`, `null`: "].V: missing"} {
		err := strict.Unmarshal([]byte(strings.Replace(text, "%", last, 1)), new(Nodes), "payload")
		if got := ""; err != nil {
			if got = err.Error(); want == "" || !strings.HasSuffix(got, want) || len(got) > 1200 {
				t.Errorf("%s: %s, want %q", last, got, want)
			}
		} else if want != "" {
			t.Errorf("%s accepted, want %q", last, want)
		}
	}
	var l List
	if err := strict.Unmarshal([]byte(strings.Repeat("[", 10000)+strings.Repeat("]", 10000)), &l, "payload"); err != nil || reflect.ValueOf(l).Len() != 1 {
		t.Error(err)
	}
	if err := strict.Unmarshal([]byte(strings.Repeat("[", 10000)+strings.Repeat("]", 10000)), new(Tree), "payload"); err == nil {
		t.Error("an array is no tree")
	}
}
